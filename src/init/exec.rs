//! The last steps: working directory, program, execve.

use super::{Done, During, Fault, Init};
use crate::sys::{Errno, clone, fd, path};
use std::ffi::CStr;
use std::os::fd::AsFd;

impl Init<'_> {
    /// Entered with the user's final rights, then proven to lie inside: getcwd(2) says `(unreachable)` for a directory
    /// that a leaked descriptor led to (CVE-2024-21626).
    pub(super) fn cwd(&mut self, dir: &CStr) -> Done {
        path::chdir(dir).during("chdir")?;
        let mut buf = [0; 4096];
        match path::cwd(&mut buf) {
            Ok(_) if buf[0] == b'/' => Ok(()),
            Ok(_) => Err(Fault {
                call: "the working directory is outside of the container: getcwd",
                errno: Errno::EPERM,
            }),
            // The container's filter may refuse it: then by a walk that no leaked descriptor can lead out.
            Err(errno) => path::open(self.root()?, dir, libc::O_PATH | libc::O_DIRECTORY, 0, path::IN_ROOT)
                .and_then(|inside| path::enter(inside.as_fd()))
                .map_err(|_| Fault { call: "getcwd", errno }),
        }
    }

    /// Looks the program up as execve(2) will see it. What a filter does not let us ask is left to execve.
    pub(super) fn find_program(&mut self) -> Done {
        let Some(program) = self.program else { return Ok(()) };
        if let Some(uid) = program.home_of {
            self.find_home(uid);
        }
        let by_path = program.candidates.len() > 1 || !program.name.contains('/');
        let mut last = Errno::ENOENT;
        for (n, candidate) in program.candidates.iter().enumerate() {
            match executable(candidate) {
                Ok(()) => {
                    self.chosen = n;
                    return Ok(());
                }
                Err(errno) => last = errno,
            }
        }
        let call = match last {
            _ if by_path => "executable file not found in $PATH",
            Errno::EISDIR => "is a directory",
            Errno::EACCES => "access",
            _ => "stat",
        };
        Err(Fault { call, errno: if last == Errno::EISDIR { Errno::EACCES } else { last } })
    }

    pub(super) fn exec(&mut self) -> Done {
        let program = self.program.ok_or(Fault { call: "execve", errno: Errno::EINVAL })?;
        let tables = self.tables.first_mut().ok_or(Fault { call: "execve", errno: Errno::EINVAL })?;
        if program.home_of.is_some() {
            let at = tables.envp.len() - 2; // the place kept free before the last null
            tables.envp[at] = self.home.as_ptr();
        }
        let path =
            program.candidates.get(self.chosen).ok_or(Fault { call: "execve", errno: Errno::ENOENT })?;
        let errno = clone::exec(path, &tables.argv, &tables.envp);
        if errno == Errno::ENOENT {
            self.find_interpreter(path);
        }
        Err(Fault { call: "execve", errno })
    }

    /// What execve(2) misses is not the file itself, which was found, but what stands after its `#!`: the detail.
    fn find_interpreter(&mut self, script: &CStr) {
        let mut buf = [0; 256];
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        let n = fd::open(script, flags, 0).and_then(|f| fd::read(&f, &mut buf)).unwrap_or(0);
        if let Some(rest) = buf[..n].strip_prefix(b"#!") {
            let line = rest.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii_start();
            // Not trimmed at its end: a carriage return there is the very mistake.
            let name = line.split(|b| matches!(b, b' ' | b'\t')).next().unwrap_or_default();
            self.set_detail(&[name]);
        }
    }

    /// HOME from the container's /etc/passwd: a regular file, read in pieces; `/` when it has no answer.
    fn find_home(&mut self, uid: u32) {
        let mut line = [0; 1024];
        let mut buf = [0; 1024];
        let mut len = 0;
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = self
            .root()
            .ok()
            .and_then(|root| path::open(root, c"etc/passwd", flags, 0, path::IN_ROOT).ok())
            .filter(|f| fd::stat(f).is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFREG));
        let mut home_set = false;
        if let Some(file) = file {
            for _ in 0..1024 {
                let n = fd::read(&file, &mut buf).unwrap_or(0);
                for byte in &buf[..n] {
                    if *byte == b'\n' {
                        if let (false, Some(home)) = (home_set, home_of(&line[..len], uid)) {
                            home_set = self.home.join(&[b"HOME=", home]).is_ok();
                        }
                        len = 0;
                    } else if len < line.len() {
                        line[len] = *byte;
                        len += 1;
                    }
                }
                if n == 0 || home_set {
                    break;
                }
            }
            if let (false, Some(home)) = (home_set, home_of(&line[..len], uid)) {
                home_set = self.home.join(&[b"HOME=", home]).is_ok();
            }
        }
        if !home_set {
            let _ = self.home.set(b"HOME=/"); // fits
        }
    }
}

/// The sixth field of a passwd(5) line of this uid.
fn home_of(line: &[u8], uid: u32) -> Option<&[u8]> {
    let mut fields = line.split(|b| *b == b':');
    let id = std::str::from_utf8(fields.nth(2)?).ok()?;
    if id.parse::<u32>() != Ok(uid) {
        return None;
    }
    fields.nth(2).filter(|h| !h.is_empty() && !h.contains(&0))
}

fn executable(file: &CStr) -> Result<(), Errno> {
    match path::stat(file) {
        Ok(st) if st.st_mode & libc::S_IFMT == libc::S_IFDIR => return Err(Errno::EISDIR),
        Ok(st) if st.st_mode & libc::S_IFMT != libc::S_IFREG => return Err(Errno::EACCES), // as execve(2) will
        Err(e @ (Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::ELOOP | Errno::ENAMETOOLONG)) => {
            return Err(e);
        }
        _ => {}
    }
    match path::may_execute(file) {
        Err(Errno::EACCES) => Err(Errno::EACCES),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::home_of;

    #[test]
    fn home_is_the_sixth_field_of_the_uid() {
        for (line, uid, home) in [
            ("root:x:0:0:root:/root:/bin/sh", 0, Some("/root")),
            ("root:x:0:0:root:/root:/bin/sh", 1, None),
            ("a:x:1000:1000::/home/a", 1000, Some("/home/a")),
            ("a:x:1000:1000:::/bin/sh", 1000, None),
            ("a:x:+5:0::/h:", 6, None),
            ("short:x", 0, None),
            ("", 0, None),
        ] {
            assert_eq!(home_of(line.as_bytes(), uid), home.map(str::as_bytes), "{line}");
        }
    }
}
