//! restore: a container from files. Everything around its init is made as `create` makes it; init comes from criu.

use super::make::{self, Order};
use super::run;
use crate::bundle::Bundle;
use crate::cli::{Global, Restore};
use crate::config::{Config, Namespace};
use crate::container::{self, Container, StateRoot};
use crate::criu::{Restored, Source, Target};
use crate::error::{Error, Result, os};
use crate::foreground::{Ends, Foreground};
use crate::plan::Plan;
use crate::sys::pty;
use crate::{hooks, spawn};
use std::path::PathBuf;

/// The exit code: the program's, or 0 when detached.
pub fn restore(root: &StateRoot, args: &Restore, global: &Global) -> Result<i32> {
    container::check_id(&args.container_id)?;
    drop(make::settle()?);
    let order = order(root, args, global)?;
    let bundle = Bundle::open(&order.bundle, &order.config)?;
    let plan = make::plan(&bundle, &order)?;
    let slots = spawn::open_early(&plan)?;
    make::check_sockets(None, order.console_socket.as_deref())?;
    let source = Source::open(args)?;
    let foreground = match args.detach {
        true => None,
        false => Some(Foreground::prepare(plan.terminal, !args.no_subreaper)?),
    };
    let mut record = make::record(&bundle, &order, &plan);
    record.criu.restored = true;
    let (mut container, cgroup) = make::reserve(root, &bundle, record, &plan)?;
    let mut on_master = |master| {
        let number = pty::number(&master).map_err(os("process.terminal", "ioctl TIOCGPTN"))?;
        make::hand_on(order.console_socket.as_deref(), master, number as i32)
    };
    let target = Target { container: &container, plan: &plan, slots, cgroup, on_master: &mut on_master };
    let restored = source.restore(args, target).inspect_err(|_| make::undo(&container))?;
    let begun = keep_time(&container, &bundle.config, &restored)
        .and_then(|()| begin(&mut container, &plan, &restored, args));
    if let Err(e) = begun {
        make::undo_ours(&mut container, restored.process);
        return Err(e);
    }
    let Restored { process, pidfd, master } = restored;
    match foreground {
        None => Ok(0),
        Some(foreground) => {
            let ends = Ends { master, ready: None };
            run::wait(foreground, container, process, &pidfd, ends, false)
        }
    }
}

fn order(root: &StateRoot, args: &Restore, global: &Global) -> Result<Order> {
    Ok(Order {
        id: args.container_id.clone(),
        bundle: args.bundle.clone(),
        config: PathBuf::from("config.json"),
        console_socket: args.console_socket.clone(),
        no_pivot: args.no_pivot,
        foreground: !args.detach,
        cgroup_manager: global.cgroup_manager,
        dir: root.path.join(&args.container_id),
        rootless: global.rootless,
        ..Order::default()
    })
}

/// criu restores into a time namespace, so that clocks go on where they were: `exec` is to join it, too.
fn keep_time(container: &Container, config: &Config, restored: &Restored) -> Result<()> {
    let namespace = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/time")).ok();
    let mut config = config.clone();
    let list = config.linux.get_or_insert_default().namespaces.get_or_insert_default();
    let known = list.iter().any(|n| n.kind.as_deref() == Some("time"));
    if known || namespace(&restored.process.pid.to_string()) == namespace("self") {
        return Ok(());
    }
    list.push(Namespace { kind: Some("time".into()), path: None });
    let text = serde_json::to_vec(&config)
        .map_err(|e| Error::invalid("config.json", format!("cannot be written as JSON: {e}")))?;
    container.save_document(&text)
}

/// The program runs again: there is no `start` that poststart hooks could wait for.
fn begin(container: &mut Container, plan: &Plan, restored: &Restored, args: &Restore) -> Result<()> {
    container.mark_created()?;
    if !plan.hooks.poststart.is_empty() {
        hooks::after_start(container, restored.process.pid, &plan.hooks.poststart)?;
    }
    args.pid_file.as_ref().map_or(Ok(()), |file| make::write_pid_file(file, restored.process.pid))
}
