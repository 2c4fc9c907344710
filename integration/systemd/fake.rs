//! A bus with a systemd that only says what it would do: what a host without systemd can show of the client.

use orlop::cgroup::systemd::wire::{FIXED, Kind, Message};
use orlop::plan::cgroup::systemd::value::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Its unique name, and that of somebody else.
const SYSTEMD: &str = ":1.0";
const SOMEBODY: &str = ":1.66";

/// How it behaves.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// What jobs end with, unless it is `done`.
    pub job: Option<&'static str>,
    /// Error (name and text) with which units are refused.
    pub refuse: Option<(&'static str, &'static str)>,
    /// The signal of a job's end comes before the answer that names the job.
    pub hasty: bool,
    /// How long every answer takes.
    pub slow: Duration,
    /// This method gets no answer.
    pub mute: Option<&'static str>,
    /// Before a job ends somebody else says that it failed.
    pub forged: bool,
    /// It is no bus.
    pub nonsense: bool,
}

#[derive(Debug, Default)]
struct Known {
    units: BTreeMap<String, BTreeMap<String, Value>>,
    calls: Vec<String>,
}

/// The bus, as long as this value lives.
pub struct FakeBus {
    pub socket: PathBuf,
    known: Arc<Mutex<Known>>,
}

impl FakeBus {
    pub fn new(dir: &Path, manner: Manner) -> Self {
        let socket = dir.join("bus");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("bind");
        let known = Arc::new(Mutex::new(Known::default()));
        let shared = known.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (manner, known) = (manner.clone(), shared.clone());
                std::thread::spawn(move || serve(stream, &manner, &known));
            }
        });
        Self { socket, known }
    }

    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket.display())
    }

    /// Names of the units that are there.
    pub fn units(&self) -> Vec<String> {
        self.known.lock().unwrap().units.keys().cloned().collect()
    }

    /// A property of a unit, as it was sent.
    pub fn property(&self, unit: &str, name: &str) -> Option<Value> {
        self.known.lock().unwrap().units.get(unit)?.get(name).cloned()
    }

    /// Methods that were called, with the unit that they were for.
    pub fn calls(&self) -> Vec<String> {
        self.known.lock().unwrap().calls.clone()
    }

    /// A unit of somebody else's.
    pub fn add(&self, unit: &str) {
        let about = BTreeMap::from([("Description".into(), Value::Str("another's".into()))]);
        self.known.lock().unwrap().units.insert(unit.into(), about);
    }

    /// No further connection is possible.
    pub fn vanish(&self) {
        std::fs::remove_file(&self.socket).expect("unlink");
    }
}

fn serve(mut stream: UnixStream, manner: &Manner, known: &Mutex<Known>) -> Option<()> {
    if manner.nonsense {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n");
        return None;
    }
    authenticate(&mut stream)?;
    loop {
        let call = receive(&mut stream)?;
        std::thread::sleep(manner.slow);
        if manner.mute == Some(&call.member) {
            known.lock().unwrap().calls.push(call.member);
            continue;
        }
        let answers = answer(&call, manner, &mut known.lock().unwrap());
        for m in answers {
            stream.write_all(&m.to_bytes()).ok()?;
        }
    }
}

fn authenticate(stream: &mut UnixStream) -> Option<()> {
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            line.push(byte[0]);
        }
        match String::from_utf8_lossy(&line).trim_matches(['\0', '\r', '\n']) {
            "AUTH EXTERNAL" => stream.write_all(b"DATA\r\n").ok()?,
            "DATA" => stream.write_all(b"OK 1234deadbeef\r\n").ok()?,
            "BEGIN" => return Some(()),
            _ => return None,
        }
    }
}

fn receive(stream: &mut UnixStream) -> Option<Message> {
    let mut bytes = vec![0; FIXED];
    stream.read_exact(&mut bytes).ok()?;
    bytes.resize(Message::length(&bytes)?, 0);
    stream.read_exact(&mut bytes[FIXED..]).ok()?;
    Message::from_bytes(&bytes)
}

fn message(kind: Kind, reply_serial: u32, member: &str, body: Vec<Value>) -> Message {
    let (member, sender) = (member.into(), SYSTEMD.into());
    Message { kind, serial: 1, reply_serial, member, sender, body, ..Message::default() }
}

const JOB: &str = "/org/freedesktop/systemd1/job/7";

/// The answer that names the job of this unit, and the signal of its end.
fn job(unit: &str, answer: Message, manner: &Manner) -> Vec<Message> {
    let body = |result: &str| {
        vec![Value::U32(7), Value::Path(JOB.into()), Value::Str(unit.into()), Value::Str(result.into())]
    };
    let signal = Message {
        path: "/org/freedesktop/systemd1".into(),
        interface: "org.freedesktop.systemd1.Manager".into(),
        ..message(Kind::Signal, 0, "JobRemoved", body(manner.job.unwrap_or("done")))
    };
    let forged = Message { sender: SOMEBODY.into(), body: body("failed"), ..signal.clone() };
    let mut all = vec![answer, signal];
    if manner.forged {
        all.insert(1, forged);
    }
    if manner.hasty {
        all.reverse();
    }
    all
}

fn answer(call: &Message, manner: &Manner, known: &mut Known) -> Vec<Message> {
    let ok = |body| message(Kind::Return, call.serial, "", body);
    let error =
        |name: &str, text: &str| message(Kind::Error, call.serial, name, vec![Value::Str(text.into())]);
    let string = |n: usize| call.body.get(n).cloned().and_then(Value::into_text).unwrap_or_default();
    let variant = |s: &str| ok(vec![Value::Variant(Box::new(Value::Str(s.into())))]);
    let unit = string(0);
    let missing = || error("org.freedesktop.systemd1.NoSuchUnit", &format!("Unit {unit} not loaded."));
    known.calls.push(format!("{} {unit}", call.member).trim_end().into());
    let job = |unit: &str| job(unit, ok(vec![Value::Path(JOB.into())]), manner);
    vec![match call.member.as_str() {
        "GetNameOwner" => ok(vec![Value::Str(SYSTEMD.into())]),
        "Hello" => ok(vec![Value::Str(":1.1".into())]),
        "Get" => match string(1).as_str() {
            "Version" => variant("257.9-1~fake"),
            "ControlGroup" => variant("/"),
            "ActiveState" => variant("active"),
            name => {
                let unit = call.path.strip_prefix("/unit/").unwrap_or_default();
                match known.units.iter().find(|u| hex(u.0) == unit).and_then(|u| u.1.get(name)) {
                    Some(value) => ok(vec![Value::Variant(Box::new(value.clone()))]),
                    None => error("org.freedesktop.DBus.Error.UnknownObject", "no such object"),
                }
            }
        },
        "GetUnit" if known.units.contains_key(&unit) => {
            ok(vec![Value::Path(format!("/unit/{}", hex(&unit)))])
        }
        "StartTransientUnit" => {
            if let Some((name, text)) = manner.refuse {
                return vec![error(name, text)];
            }
            if known.units.contains_key(&unit) {
                return vec![error("org.freedesktop.systemd1.UnitExists", "it exists")];
            }
            if manner.job.is_none() {
                known.units.insert(unit.clone(), pairs(&call.body[2]));
            }
            return job(&unit);
        }
        "StopUnit" if known.units.remove(&unit).is_some() => return job(&unit),
        "SetUnitProperties" => match known.units.get_mut(&unit) {
            Some(about) => {
                about.extend(pairs(&call.body[2]));
                ok(vec![])
            }
            None => missing(),
        },
        "GetUnit" | "StopUnit" => missing(),
        _ => ok(vec![]),
    }]
}

fn hex(text: &str) -> String {
    text.bytes().map(|b| format!("{b:02x}")).collect()
}

fn pairs(list: &Value) -> BTreeMap<String, Value> {
    let Value::Array(_, list) = list else { return BTreeMap::new() };
    let pair = |v: &Value| match v {
        Value::Struct(parts) => match &parts[..] {
            [Value::Str(name), Value::Variant(value)] => Some((name.clone(), (**value).clone())),
            _ => None,
        },
        _ => None,
    };
    list.iter().filter_map(pair).collect()
}
