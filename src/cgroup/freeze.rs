//! Freezing: pause and resume, and the killing of what may be frozen or fork meanwhile.

use super::dir::Dir;
use super::{Cgroup, Place, unlisted};
use crate::error::{Error, Kind, Result, os};
use crate::sys::{Errno, Sys};
use std::time::{Duration, Instant};

/// How long a freezer may take before a kill does without.
const BRIEF: Duration = Duration::from_millis(500);
/// How long the attempts of a pause may take, in milliseconds: what waits for a process that was frozen first gets on
/// between two of them.
const ATTEMPTS: [u64; 3] = [100, 400, 1500];
/// How long a resume may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The freezer of one cgroup; that of v2 is in every cgroup but the root.
struct Freezer<'a> {
    place: &'a Place,
    dir: Dir,
}

impl Freezer<'_> {
    fn file(&self) -> &'static str {
        if self.place.v2 { "cgroup.freeze" } else { "freezer.state" }
    }

    fn value(&self, frozen: bool) -> &'static str {
        match (self.place.v2, frozen) {
            (true, true) => "1",
            (true, false) => "0",
            (false, true) => "FROZEN",
            (false, false) => "THAWED",
        }
    }

    fn set(&self, frozen: bool) -> Result<()> {
        let value = self.value(frozen);
        let failed =
            |e| Error::os(self.place.name(), format!("write {value:?} to {}", self.file()), e as i32);
        self.dir.write(self.file(), value).map_err(failed)
    }

    /// Everything in it stands still; `None` while some do, or are told to.
    fn state(&self) -> Sys<Option<bool>> {
        if self.place.v2 {
            let frozen = self.dir.has_line("cgroup.events", "frozen 1");
            let told = frozen || self.dir.read("cgroup.freeze")?.trim_end() == "1";
            return Ok((frozen == told).then_some(frozen));
        }
        Ok(match self.dir.read("freezer.state")?.trim_end() {
            "FROZEN" => Some(true),
            "THAWED" => Some(false),
            _ => None,
        })
    }

    /// Waits until all of it stands still, or goes on.
    fn becomes(&self, frozen: bool, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut pause = Duration::from_micros(50);
        loop {
            if self.state() == Ok(Some(frozen)) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }

    fn path(&self) -> String {
        format!("{}/{}", self.place.name(), self.file())
    }
}

impl Place {
    /// As [`Cgroup::is_frozen`], in this hierarchy.
    pub(super) fn is_frozen(&self) -> bool {
        let is = |file, what: &dyn Fn(&str) -> bool| self.value(file).is_ok_and(|text| what(&text));
        match self.v2 {
            true => {
                is("cgroup.events", &|text| text.lines().any(|l| l == "frozen 1"))
                    || is("cgroup.freeze", &|text| text == "1\n")
            }
            false => self.freezer && is("freezer.state", &|text| text != "THAWED\n"),
        }
    }
}

impl Cgroup {
    /// Those that are there: of a cgroup that is gone nothing is frozen.
    fn freezers(&self) -> Result<Vec<Freezer<'_>>> {
        let mut there = Vec::with_capacity(2);
        for place in self.places.iter().filter(|p| p.v2 || p.freezer) {
            match place.open() {
                Ok(dir) => there.push(Freezer { place, dir }),
                Err(Errno::ENOENT) => {}
                Err(e) => return Err(Error::os(place.name(), "open", e as i32)),
            }
        }
        Ok(there)
    }

    /// Frozen, or about to be, by itself or by a cgroup above.
    pub fn is_frozen(&self) -> bool {
        self.places.iter().any(Place::is_frozen)
    }

    /// Freezes it, and returns when every process in it and below stands still; one that does not is undone. `false`:
    /// there is no cgroup that could be frozen.
    pub fn pause(&self) -> Result<bool> {
        // That of v1 first: in a hybrid host processes can have left the v2 one.
        let mut all = self.freezers()?;
        all.retain(|f| f.dir.has(f.file()));
        all.sort_by_key(|f| f.place.v2);
        let Some(freezer) = all.first() else { return Ok(false) };
        for attempt in ATTEMPTS {
            freezer.set(true)?;
            if freezer.becomes(true, Duration::from_millis(attempt)) {
                return Ok(true);
            }
            freezer.set(false)?;
        }
        let what = format!("did not freeze within {} ms, and goes on", ATTEMPTS.iter().sum::<u64>());
        Err(Error::new(Kind::WrongState, freezer.path(), what).hint("a process is stuck in the kernel"))
    }

    /// Lets it go on; what others froze below it stays as it is.
    pub fn resume(&self) -> Result<()> {
        for freezer in self.freezers()?.iter().filter(|f| f.dir.has(f.file())) {
            freezer.set(false)?;
            if !freezer.becomes(false, PATIENCE) {
                let error = Error::new(Kind::WrongState, freezer.path(), "is still frozen");
                return Err(error.hint("a cgroup above is frozen"));
            }
        }
        Ok(())
    }

    /// Thaws it and every cgroup below. One above is not ours to thaw.
    pub fn thaw(&self) -> Result<()> {
        for f in self.freezers()? {
            let (file, value) = (f.file(), f.value(false));
            f.dir
                .each(&mut |d| d.write(file, value))
                .map_err(os(f.place.name(), format!("write {value:?} to {file}, there or below")))?;
        }
        Ok(())
    }

    /// Signals every process in it and below. SIGKILL leaves none alive, however fast they fork.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        let v2 = self.places.iter().find(|p| p.v2).and_then(|p| p.open().ok());
        let at_once = signal == libc::SIGKILL && v2.is_some_and(|d| d.write("cgroup.kill", "1").is_ok()); // since 5.14
        let Some((place, dir)) = self.lister()? else { return Ok(()) };
        // Only for SIGKILL: whoever ends us meanwhile must not leave a living container frozen.
        if signal != libc::SIGKILL || at_once {
            return dir.signal(signal).map_err(unlisted(place));
        }
        let freezer = Freezer { place, dir };
        // Best effort: a process that does not freeze is signalled all the same.
        if (place.v2 || place.freezer) && freezer.set(true).is_ok() {
            freezer.becomes(true, BRIEF);
        }
        let signalled = freezer.dir.signal(libc::SIGKILL).map_err(unlisted(place));
        self.thaw()?; // what was signalled is to die, whatever else could not be
        signalled
    }
}
