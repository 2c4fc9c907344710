//! exec: another program in a container.

use super::make;
use crate::bundle;
use crate::cgroup::{Below, Cgroup};
use crate::cli::Exec;
use crate::config::{Config, Process};
use crate::container::{self, Container, StateRoot, Status};
use crate::error::{Error, Kind, Result};
use crate::foreground::{Ends, Foreground};
use crate::host;
use crate::plan::cgroup::systemd::Manager;
use crate::plan::step::OpenWhat;
use crate::plan::{Plan, Request, exec};
use crate::spawn::{self, Member};
use std::os::fd::AsFd;

/// The exit code: the program's, or 0 when detached.
pub fn exec(root: &StateRoot, args: &Exec) -> Result<i32> {
    container::check_id(&args.container_id)?;
    drop(make::settle()?);
    let c = root.load(&args.container_id)?;
    let init = living(&c, args.ignore_paused)?;
    let gone = || super::not_running(&c, Status::Stopped, "exec in");
    let pidfd = init.pidfd().ok_or_else(gone)?;
    let mut document = c.document()?;
    document.process = Some(process(&document, args)?);
    if let Some(linux) = &mut document.linux {
        linux.devices = None; // made already: the host need not be searched for them
    }
    let plan = plan(&document, &c, args)?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    make::check_sockets(args.pidfd_socket.as_deref(), args.console_socket.as_deref())?;
    let below = args.cgroup.iter().map(|t| Below::parse(t)).collect::<Result<Vec<_>>>()?;
    let mut cgroup = Cgroup::for_another(&c.record.cgroup, &below, init.pid)?;
    let foreground = (!args.detach).then(|| Foreground::prepare(plan.terminal, false)).transpose()?;
    let interrupts = (!args.detach).then(Foreground::interrupts).transpose()?;
    let mut pidfd = Some(pidfd);
    let slots = plan.opens.iter().map(|o| pidfd.take_if(|_| o.what == OpenWhat::Init)).collect();
    let member = Member { container: &c, init: false };
    // Its init is dying: until the last of its processes is collected it is no zombie, but has no namespaces any more.
    let dying = |e: Error| match e.errno() {
        Some(libc::ESRCH) if e.at.starts_with("linux.namespaces") => gone(),
        _ => e,
    };
    let (mut child, slots) = spawn::clone_init(&plan, slots, &mut cgroup, member).map_err(dying)?;
    child.interrupts = interrupts;
    let served = make::serve(child, &plan, member, slots, args.console_socket.as_deref());
    let mut child = served.map_err(|e| match c.status() {
        // Init is undumpable until then, and setns(2) asks for the right to trace it.
        (Status::Created, _) if e.errno() == Some(libc::EPERM) && e.hint.is_none() => {
            e.hint("an ordinary user may enter a container only once it was started")
        }
        _ => dying(e),
    })?;
    let begun = child
        .await_exec(&plan, member)
        .and_then(|()| make::publish(args.pidfd_socket.as_deref(), args.pid_file.as_deref(), &child));
    if let Err(e) = begun {
        child.kill();
        return Err(e);
    }
    match foreground {
        None => Ok(0),
        Some(f) => {
            let ends = Ends { master: child.master.take(), ready: None };
            let code = f.wait(child.process.pid, child.pidfd.as_fd(), ends).inspect_err(|_| child.kill());
            std::mem::forget(child); // as in `run::wait`
            code
        }
    }
}

/// Init, if the container takes another process: created and running ones do (runc does the same).
fn living(c: &Container, ignore_paused: bool) -> Result<container::Process> {
    match c.seen() {
        (Status::Created | Status::Running, Some(init)) => Ok(init),
        (Status::Paused, Some(init)) if ignore_paused => Ok(init),
        (Status::Paused, _) => {
            let at = format!("container {:?}", c.record.id);
            let what = "cannot exec in a paused container";
            Err(Error::new(Kind::WrongState, at, what).hint("--ignore-paused runs it once that is resumed"))
        }
        (status, _) => Err(super::not_running(c, status, "exec in")),
    }
}

fn process(document: &Config, args: &Exec) -> Result<Process> {
    let container = document.process.clone().unwrap_or_default();
    if let Some(file) = &args.process {
        return Ok(exec::whole(bundle::process(file)?, &container));
    }
    let text = |at: &str, s: &std::ffi::OsStr| {
        let shown = || Error::invalid(at, format!("{s:?} is not UTF-8, which the document demands"));
        s.to_str().map(String::from).ok_or_else(shown)
    };
    let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty()); // runc's are none when empty
    let flags = exec::Flags {
        args: args.command.iter().map(|a| text("process.args", a)).collect::<Result<_>>()?,
        env: args.env.clone(),
        cwd: args.cwd.as_ref().map(|c| text("--cwd", c.as_os_str())).transpose()?,
        terminal: args.tty,
        user: given(&args.user),
        additional_gids: args.additional_gids.clone(),
        no_new_privileges: args.no_new_privs,
        apparmor_profile: given(&args.apparmor),
        selinux_label: given(&args.process_label),
        caps: args.cap.clone(),
    };
    exec::changed(&container, &flags)
}

fn plan(document: &Config, c: &Container, args: &Exec) -> Result<Plan> {
    let mut facts = host::facts(document, false)?;
    facts.systemd = c.record.cgroup.unit.as_ref().map(|u| Manager { user: u.user, ..Manager::default() });
    let preserve_fds = super::preserve(args.preserve_fds)?;
    let request = Request {
        id: c.record.id.clone(),
        bundle: c.record.bundle.clone(),
        foreground: !args.detach,
        console_socket: args.console_socket.clone(),
        no_new_keyring: c.record.no_new_keyring,
        preserve_fds,
        listen_fds: make::handed_on(preserve_fds)?,
        ..Request::default()
    };
    Plan::for_exec(document, &facts, &request)
}
