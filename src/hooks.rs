//! Hooks that run in the runtime's namespaces: prestart, createRuntime, poststart, poststop
//! (config.md#posix-platform-hooks).

use crate::container::Container;
use crate::error::{Error, Result, os};
use crate::init::hook::{self, End, Job};
use crate::plan::cstring;
use crate::plan::hooks::{Hook, Hooks, OUTPUTS};
use crate::sys::{clone::Exit, fd};
use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

/// How much of what a failed hook printed is told.
const OUTPUT: usize = 4096;

/// Runs the hooks of this kind in order, each with `state` on its standard input, up to the first that fails. What they
/// print is told when they fail; our own streams, which are the container's, they never see.
pub fn run(kind: &str, hooks: &[Hook], state: &[u8], beside: Option<Beside>) -> Result<()> {
    hooks.iter().enumerate().try_for_each(|(n, hook)| one(&format!("hooks.{kind}[{n}]"), hook, state, beside))
}

/// What a hook has no purpose without: a descriptor that is readable once it is gone, and words for that.
#[derive(Clone, Copy)]
pub struct Beside<'a>(pub BorrowedFd<'a>, pub &'static str);

/// poststart: the program may be over before them, and they count all the same; but not when the container is deleted,
/// which would leave hooks that hang to nobody. `c` is locked and, so that its deletion has not to wait, will not be.
pub fn after_start(c: &mut Container, pid: i32, hooks: &[Hook]) -> Result<()> {
    if hooks.is_empty() {
        c.unlock();
        return Ok(());
    }
    let state = c.state("running", pid).to_string();
    let removal = c.watch().inspect_err(|e| tracing::warn!("hooks.poststart: no watch for a deletion: {e}"));
    c.unlock();
    let beside = removal.as_ref().ok().map(|fd| Beside(fd.as_fd(), "the container was deleted"));
    run("poststart", hooks, state.as_bytes(), beside)
}

/// The hooks that run here while a container is made; they are killed when init, of this pidfd, is, so that `delete
/// --force` has not to wait for one that hangs. To prestart the container is created: it comes after step 2 of
/// runtime.md#lifecycle, which alone is `creating`. createRuntime's, which are younger, are told what runc tells them.
pub fn of_create(c: &Container, pid: i32, init: BorrowedFd, hooks: &Hooks) -> Result<()> {
    let kinds =
        [("prestart", "created", &hooks.prestart), ("createRuntime", "creating", &hooks.create_runtime)];
    for (kind, status, list) in kinds {
        let state = c.state(status, pid).to_string();
        run(kind, list, state.as_bytes(), Some(Beside(init, "the container process ended")))?;
    }
    Ok(())
}

/// Runs them all; failures are logged (runtime.md#lifecycle: poststop).
pub fn run_lenient(kind: &str, hooks: &[Hook], state: &[u8]) {
    for (n, hook) in hooks.iter().enumerate() {
        if let Err(e) = one(&format!("hooks.{kind}[{n}]"), hook, state, None) {
            tracing::warn!("{e}");
        }
    }
}

fn one(at: &str, hook: &Hook, state: &[u8], beside: Option<Beside>) -> Result<()> {
    let strings = |list: &[String]| list.iter().map(|s| cstring(at, s)).collect::<Result<Vec<_>>>();
    let path = cstring(at, &hook.path.to_string_lossy())?;
    let argv = if hook.args.is_empty() { vec![path.clone()] } else { strings(&hook.args)? };
    let envp = match &hook.env {
        Some(env) => strings(env)?,
        None => own_environment(),
    };
    // A file rather than a pipe: a hook that does not read can neither block us nor make the write fail.
    let input = fd::memfd(c"state").map_err(os(at, "memfd_create"))?;
    fd::write(&input, state).map_err(os(at, "write of the state"))?;
    let cwd = bundle(state);
    let open = |file: &Option<String>, name| match file {
        Some(file) => append_to(name, &cstring(name, file)?).map(Some),
        None => Ok(None),
    };
    let [out, err] = &hook.output;
    let files = [open(out, OUTPUTS[0])?, open(err, OUTPUTS[1])?];
    let job = Job {
        path: &path,
        argv: &pointers(&argv),
        envp: &pointers(&envp),
        state: input.as_fd(),
        output: files.each_ref().map(|f| f.as_ref().map(|f| f.as_fd())),
        cwd: cwd.as_deref(),
        timeout: hook.timeout.map(|t| t.as_millis() as u64),
        beside: beside.map(|b| b.0),
    };
    let mut output = [0; OUTPUT];
    let (end, len) = hook::run(&job, &mut output).map_err(|f| Error::os(at, f.call, f.errno as i32))?;
    let how = match end {
        End::Exit(Exit::Code(0)) => return Ok(()),
        End::NoExec(errno) => return Err(Error::os(at, format!("{:?}: execve", hook.path), errno as i32)),
        End::Exit(Exit::Code(c)) => format!("exited with status {c}"),
        End::Exit(Exit::Signal(s)) => format!("killed by signal {s}"),
        End::Alone => format!("killed, since {}", beside.map_or("", |b| b.1)),
        End::Timeout => format!("timed out after {} s", hook.timeout.unwrap_or_default().as_secs()),
    };
    let said = String::from_utf8_lossy(&output[..len]);
    let colon = if said.trim().is_empty() { "" } else { ": " };
    Err(Error::invalid(at, format!("{:?}: {how}{colon}{}", hook.path, said.trim())))
}

/// A file that takes the output of hooks.
pub fn append_to(at: &str, path: &CStr) -> Result<OwnedFd> {
    // Of a FIFO that nobody reads open(2) would wait without end, and no hook's timeout counts yet.
    let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_APPEND | libc::O_NOCTTY | libc::O_NONBLOCK;
    let file = fd::open(path, flags, 0o644).map_err(os(at, format!("open {:?}", path.to_string_lossy())))?;
    fd::set_appending(&file).map_err(os(at, "fcntl F_SETFL"))?;
    Ok(file)
}

fn pointers(list: &[CString]) -> Vec<*const c_char> {
    list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

fn own_environment() -> Vec<CString> {
    let entry = |(mut key, value): (std::ffi::OsString, std::ffi::OsString)| {
        key.push("=");
        key.push(value);
        CString::new(key.into_vec()).ok() // no NUL: it came from execve
    };
    std::env::vars_os().filter_map(entry).collect()
}

/// The bundle of the state is the working directory, as callers of runc expect; it may be gone when a container is
/// deleted.
fn bundle(state: &[u8]) -> Option<CString> {
    let state: serde_json::Value = serde_json::from_slice(state).ok()?;
    CString::new(state["bundle"].as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_fifo_that_nobody_reads_takes_no_output() {
        let path = std::env::temp_dir().join(format!("orlop-hook-fifo-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let file = CString::new(path.to_str().unwrap()).unwrap();
        let refused = append_to(OUTPUTS[0], &file).unwrap_err();
        assert_eq!(refused.errno(), Some(libc::ENXIO), "{refused}");
        std::fs::remove_file(&path).unwrap();
        // What it is opened with lasts no longer than that.
        let opened = append_to(OUTPUTS[0], &file).unwrap();
        let flags = nix::fcntl::fcntl(&opened, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags & (libc::O_NONBLOCK | libc::O_APPEND), libc::O_APPEND);
        std::fs::remove_file(&path).unwrap();
    }

    fn sh(script: &str) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            ..Hook::default()
        }
    }

    fn error(hook: Hook) -> String {
        run("prestart", &[sh("true"), hook], b"{}", None).expect_err("an error").to_string()
    }

    #[test]
    fn the_state_is_on_standard_input_and_the_bundle_the_working_directory() {
        let state = br#"{"id":"web","bundle":"/usr"}"#;
        run(
            "prestart",
            &[sh(r#"test "$(cat)" = '{"id":"web","bundle":"/usr"}' && test "$PWD" = /usr"#)],
            state,
            None,
        )
        .unwrap();
    }

    #[test]
    fn a_hook_that_does_not_read_a_large_state_is_fine() {
        run("prestart", &[sh("exec <&-")], &vec![b' '; 1 << 20], None).unwrap();
    }

    #[test]
    fn failures_tell_what_the_hook_said() {
        for (script, message) in [
            (
                "echo no such bridge >&2; exit 3",
                "hooks.prestart[1]: \"/bin/sh\": exited with status 3: no such bridge",
            ),
            ("exit 1", "hooks.prestart[1]: \"/bin/sh\": exited with status 1"),
            ("kill -9 $$", "hooks.prestart[1]: \"/bin/sh\": killed by signal 9"),
        ] {
            assert_eq!(error(sh(script)), message);
        }
        let missing = Hook { path: "/nonexistent/hook".into(), ..Hook::default() };
        let message = "hooks.prestart[1]: \"/nonexistent/hook\": execve: no such file or directory";
        assert_eq!(error(missing), message);
    }

    #[test]
    fn a_flood_of_output_does_not_block() {
        let e = error(sh("head -c 1000000 /dev/zero | tr '\\0' x; exit 1"));
        assert!(e.len() < OUTPUT + 100 && e.ends_with("xxx"));
    }

    #[test]
    fn the_timeout_kills_the_whole_group() {
        let start = Instant::now();
        let hook = Hook { timeout: Some(Duration::from_secs(1)), ..sh("sleep 600 & echo $!; wait") };
        let e = error(hook);
        let pid = e.strip_prefix("hooks.prestart[1]: \"/bin/sh\": timed out after 1 s: ").expect(&e);
        assert!(start.elapsed() < Duration::from_secs(30));
        while crate::container::proc_stat(pid.parse().unwrap()).is_some_and(|s| !s.is_dead()) {
            assert!(start.elapsed() < Duration::from_secs(30), "{pid} lives");
        }
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipe_does_not_hold_us_up() {
        let start = Instant::now();
        run("prestart", &[sh("sleep 20 & exit 0")], b"{}", None).unwrap();
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn the_environment_is_as_given_or_ours() {
        let env = Hook {
            env: Some(vec!["A=1".into()]),
            ..sh("test \"$A\" = 1 && test -z \"$CARGO_MANIFEST_DIR$HOME\"")
        };
        run("prestart", &[env, sh("test -n \"$CARGO_MANIFEST_DIR\"")], b"{}", None).unwrap();
    }

    #[test]
    fn nothing_but_the_streams_is_open() {
        let leaked = fd::open(c"/dev/null", libc::O_RDONLY, 0).unwrap();
        fd::dup_to(std::os::fd::AsRawFd::as_raw_fd(&leaked), 57).unwrap();
        run("prestart", &[sh("test ! -e /proc/self/fd/57")], b"{}", None).unwrap();
    }

    #[test]
    fn lenient_goes_on() {
        let dir = std::env::temp_dir().join(format!("orlop-hooks-{}", std::process::id()));
        run_lenient("poststop", &[sh("exit 1"), sh(&format!("echo > {}", dir.display()))], b"{}");
        std::fs::remove_file(dir).unwrap();
    }
}
