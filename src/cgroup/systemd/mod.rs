//! Units of systemd, over its bus.

mod bus;
pub mod wire;

use crate::error::{Error, Kind, Result};
use crate::plan::cgroup::systemd::value::Value;
use crate::plan::cgroup::systemd::{Manager, Property, Unit};
use bus::{AT, Bus, PATIENCE, Refusal};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";
/// systemd's own socket, for root alone: it is there without a bus.
const PRIVATE: &str = "unix:path=/run/systemd/private";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// What every later call must know of the unit, on record before it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Recorded {
    pub name: String,
    /// Of the bus.
    pub address: String,
    /// It is the user's systemd.
    pub user: bool,
    pub description: String,
}

impl Recorded {
    pub fn of(unit: &Unit) -> Recorded {
        let Unit { name, address, user, description, .. } = unit.clone();
        Recorded { name, address, user, description }
    }
}

/// Whose unit of this name there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This container's.
    Us,
    Another,
    /// There is none.
    Nobody,
}

/// systemd, connected.
#[derive(Debug)]
pub struct Systemd {
    bus: Bus,
    /// By way of a bus, which has to be asked for signals.
    on_bus: bool,
    /// Who it was there when jobs' ends were asked for.
    listened_to: String,
}

/// The manager that makes cgroups for us: the system's for root, and for root of a user namespace that has a systemd of
/// its own; the user's for anybody else.
pub fn manager() -> Result<Manager> {
    let (address, user) = if is_systems_root() {
        let asked = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").ok().filter(|a| !a.is_empty());
        (asked.unwrap_or_else(|| SYSTEM_BUS.into()), false)
    } else {
        (session()?, true)
    };
    let mut manager = Manager { address, user, ..Manager::default() };
    let mut systemd = Systemd::connect(&manager.address, user)?;
    manager.version = systemd.version()?;
    manager.control_group = systemd.about("ControlGroup")?.trim_end_matches('/').into();
    Ok(manager)
}

/// Root, by the eyes of who started this systemd.
fn is_systems_root() -> bool {
    let is_roots = |path: &str| std::fs::metadata(path).is_ok_and(|m| m.uid() == 0);
    let root = nix::unistd::geteuid().is_root();
    root && (crate::host::in_initial_user_namespace() || is_roots("/run/systemd/system"))
}

fn session() -> Result<String> {
    let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    if let Some(address) = var("DBUS_SESSION_BUS_ADDRESS") {
        return Ok(address);
    }
    let Some(dir) = var("XDG_RUNTIME_DIR") else {
        let what = "neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set: the user's bus is not known";
        return Err(Error::new(Kind::NotFound, AT, what)
            .hint("a login session sets them, and so does machinectl shell"));
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_/.\\*".contains(&b);
    let escaped: String =
        dir.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02x}") }).collect();
    Ok(format!("unix:path={escaped}/bus"))
}

impl Systemd {
    /// By its bus; root does without, where there is none and none was named.
    pub fn connect(address: &str, user: bool) -> Result<Systemd> {
        let refused = match Bus::connect(address, true, PATIENCE) {
            Ok(bus) => return Ok(Systemd { bus, on_bus: true, listened_to: String::new() }),
            Err(e) => e,
        };
        let absent = matches!(refused.errno(), Some(libc::ENOENT | libc::ECONNREFUSED));
        if absent && address == SYSTEM_BUS {
            if let Ok(bus) = Bus::connect(PRIVATE, false, PATIENCE) {
                return Ok(Systemd { bus, on_bus: false, listened_to: String::new() });
            }
        }
        Err(match (absent, user) {
            (true, false) => refused.hint("is systemd the init of this host?"),
            (true, true) => refused.hint("has this user a session of systemd?"),
            (false, _) => refused,
        })
    }

    fn manager(&mut self, member: &str, body: Vec<Value>) -> Result<Vec<Value>, Refusal> {
        self.call(PATH, MANAGER, member, body)
    }

    /// While it executes itself again systemd is not on the bus: what it was not asked, or did not answer, is asked
    /// again.
    fn call(
        &mut self,
        path: &str,
        interface: &str,
        member: &str,
        body: Vec<Value>,
    ) -> Result<Vec<Value>, Refusal> {
        const AWAY: [&str; 4] = ["NoReply", "ServiceUnknown", "NameHasNoOwner", "Disconnected"];
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.bus.call(NAME, path, interface, member, body.clone()) {
                Err(Refusal::Answer { name, .. })
                    if AWAY.iter().any(|a| name.strip_prefix("org.freedesktop.DBus.Error.") == Some(a))
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => return other,
            }
        }
    }

    /// A property that is a string; one of another type is as an empty one.
    fn property(&mut self, path: &str, interface: &str, name: &str) -> Result<String, Refusal> {
        let body = [interface, name].map(|s| Value::Str(s.into())).into();
        let answer = self.call(path, "org.freedesktop.DBus.Properties", "Get", body)?;
        let text = match answer.into_iter().next() {
            Some(Value::Variant(value)) => value.into_text(),
            _ => None,
        };
        Ok(text.unwrap_or_default())
    }

    fn about(&mut self, name: &str) -> Result<String> {
        self.property(PATH, MANAGER, name).map_err(|e| self.bus.explain(e, &format!("systemd's {name}")))
    }

    /// systemd's version: its first number.
    pub fn version(&mut self) -> Result<u32> {
        let text = self.about("Version")?;
        let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        Ok(digits[..end].parse().unwrap_or(0))
    }

    /// Starts the unit with this process in it, and waits until it is there.
    pub fn start(&mut self, unit: &Unit, pid: i32) -> Result<()> {
        self.listen(&unit.name)?;
        let mut properties: Vec<_> = unit.properties.iter().map(|p| pair(&p.name, p.value.clone())).collect();
        if !unit.name.ends_with(".slice") {
            properties.push(pair("PIDs", pids(pid)));
        }
        let body = vec![
            Value::Str(unit.name.clone()),
            Value::Str("replace".into()), // a slice that is just being stopped stays
            Value::Array("(sv)".into(), properties),
            Value::Array("(sa(sv))".into(), vec![]),
        ];
        let recorded = Recorded::of(unit);
        let deadline = Instant::now() + Duration::from_secs(2);
        let job = loop {
            match self.manager("StartTransientUnit", body.clone()) {
                Ok(job) => break Some(job),
                Err(Refusal::Answer { name, .. }) if name == EXISTS => {
                    // An answer was lost: systemd had it before it executed itself again.
                    if self.owner(&recorded)? == Owner::Us {
                        break None;
                    }
                    self.clear(&unit.name, deadline)?;
                }
                Err(e) => return Err(self.refused(&unit.name, &unit.properties, e)),
            }
        };
        let result = job.map_or(Ok("done".into()), |job| self.job(job))?;
        if result != "done" {
            self.reset(&unit.name);
            let what =
                format!("systemd could not start the unit {:?}: its job ended with {result:?}", unit.name);
            return Err(Error::new(Kind::WrongState, "linux.cgroupsPath", what));
        }
        Ok(())
    }

    /// A unit of this name is there: one that failed goes when it is asked to, one that ended goes by itself.
    fn clear(&mut self, name: &str, deadline: Instant) -> Result<()> {
        let Some(path) = self.unit(name)? else { return Ok(()) };
        let state = self.property(&path, UNIT, "ActiveState").unwrap_or_default();
        if !["failed", "inactive", "deactivating"].contains(&state.as_str()) || Instant::now() > deadline {
            let what = format!("the systemd unit {name:?} exists already, and is {state}");
            return Err(Error::new(Kind::WrongState, "linux.cgroupsPath", what));
        }
        self.reset(name);
        std::thread::sleep(Duration::from_millis(10));
        Ok(())
    }

    /// The error of a unit that systemd does not take: it names the property, and we who asked for it.
    fn refused(&self, unit: &str, properties: &[Property], refusal: Refusal) -> Error {
        let text = match &refusal {
            Refusal::Answer { text, .. } => text.clone(),
            Refusal::Bus(_) => String::new(),
        };
        let word = |name: &str| text.split(|c: char| !c.is_ascii_alphanumeric()).any(|w| w == name);
        let mut error = self.bus.explain(refusal, &format!("systemd refuses the unit {unit:?}"));
        if error.errno().is_none() {
            let asked = properties.iter().rfind(|p| word(&p.name));
            error.at = asked.map_or("linux.cgroupsPath", |p| &p.at).to_string();
        }
        error
    }

    /// Has jobs' ends reported; before one is begun.
    fn listen(&mut self, what: &str) -> Result<()> {
        let rule =
            format!("type='signal',sender='{NAME}',interface='{MANAGER}',member='JobRemoved',path='{PATH}'");
        let asked = match self.on_bus {
            true => self.bus.listen(&rule).and_then(|()| self.manager("Subscribe", vec![])),
            false => self.manager("Subscribe", vec![]),
        };
        match asked {
            Err(Refusal::Bus(e)) => Err(e),
            Err(Refusal::Answer { name, .. }) if name.ends_with(".AlreadySubscribed") => Ok(()),
            Err(e) => Err(self.bus.explain(e, &format!("to wait for {what}"))),
            Ok(_) => Ok(()),
        }?;
        if self.on_bus {
            self.listened_to = self.bus.name_owner(NAME)?;
        }
        Ok(())
    }

    /// Waits for a job's end; its result.
    fn job(&mut self, answer: Vec<Value>) -> Result<String> {
        let Some(Value::Path(job)) = answer.into_iter().next() else {
            return Err(Error::os(AT, "systemd's answer is no job", libc::EPROTO));
        };
        let is_it = |m: &wire::Message| match (&m.member[..], &m.body[..]) {
            ("JobRemoved", [_, Value::Path(path), _, Value::Str(result)]) if *path == job => {
                Some((m.sender.clone(), result.clone()))
            }
            _ => None,
        };
        loop {
            let (sender, result) = self.bus.signal(is_it)?;
            // Everybody on the system's bus may send signals of any name. While a job lasts systemd may execute itself
            // again, and is somebody else on the bus then.
            if !self.on_bus || sender == self.listened_to || sender == self.bus.name_owner(NAME)? {
                return Ok(result);
            }
            tracing::debug!("{sender:?} is not systemd, and says that {job} ended with {result:?}");
        }
    }

    fn reset(&mut self, name: &str) {
        let _ = self.manager("ResetFailedUnit", vec![Value::Str(name.into())]); // one that did not fail need not be
    }

    /// The object of a unit that is loaded.
    fn unit(&mut self, name: &str) -> Result<Option<String>> {
        match self.manager("GetUnit", vec![Value::Str(name.into())]) {
            Ok(answer) => Ok(answer.into_iter().find_map(|v| match v {
                Value::Path(path) => Some(path),
                _ => None,
            })),
            Err(Refusal::Answer { name, .. }) if name == NO_SUCH_UNIT => Ok(None),
            Err(e) => Err(self.bus.explain(e, &format!("the systemd unit {name:?}"))),
        }
    }

    /// Names are reused: it is this container's by its description.
    pub fn owner(&mut self, unit: &Recorded) -> Result<Owner> {
        let Some(path) = self.unit(&unit.name)? else { return Ok(Owner::Nobody) };
        match self.property(&path, UNIT, "Description") {
            Ok(d) if d == unit.description => Ok(Owner::Us),
            Ok(_) => Ok(Owner::Another),
            Err(Refusal::Bus(e)) => Err(e),
            Err(Refusal::Answer { .. }) => Ok(Owner::Nobody), // it went meanwhile
        }
    }

    /// Stops the unit and waits until it is gone.
    pub fn stop(&mut self, name: &str) -> Result<()> {
        self.listen(name)?;
        match self.manager("StopUnit", [name, "replace"].map(|s| Value::Str(s.into())).into()) {
            Ok(job) => drop(self.job(job)?),
            Err(Refusal::Bus(e)) => return Err(e),
            Err(Refusal::Answer { name: refusal, text }) if refusal != NO_SUCH_UNIT => {
                tracing::debug!("systemd does not stop {name}: {text}");
            }
            Err(_) => {}
        }
        self.reset(name);
        Ok(())
    }

    /// Gives a running unit these properties, until it ends.
    pub fn set(&mut self, name: &str, properties: &[Property]) -> Result<()> {
        let pairs = properties.iter().map(|p| pair(&p.name, p.value.clone())).collect();
        let list = Value::Array("(sv)".into(), pairs);
        let body = vec![Value::Str(name.into()), Value::Bool(true), list];
        match self.manager("SetUnitProperties", body) {
            // Cgroups are written when it has nothing else to do, and before it answers again.
            Ok(_) => self.unit(name).map(drop),
            Err(e) => Err(self.refused(name, properties, e)),
        }
    }

    /// Moves a process into the unit: the user's systemd may where the user may not.
    pub fn attach(&mut self, name: &str, pid: i32) -> Result<()> {
        let body = vec![Value::Str(name.into()), Value::Str(String::new()), pids(pid)];
        let moved = self.manager("AttachProcessesToUnit", body);
        moved.map(drop).map_err(|e| self.bus.explain(e, &format!("to join the systemd unit {name:?}")))
    }
}

fn pair(name: &str, value: Value) -> Value {
    Value::Struct(vec![Value::Str(name.into()), Value::Variant(Box::new(value))])
}

fn pids(pid: i32) -> Value {
    Value::Array("u".into(), vec![Value::U32(pid as u32)])
}
