//! update: changes the limits of a container.

use crate::bundle;
use crate::cgroup;
use crate::cli::Update;
use crate::config::{BlockIo, Cpu, Memory, Pids, Resources};
use crate::container::{StateRoot, Status};
use crate::error::{Error, Result};
use crate::plan::cgroup::update;
use crate::plan::rdt::{self, Line};
use std::fs::File;
use std::path::Path;

pub fn update(root: &StateRoot, args: &Update) -> Result<()> {
    let schemas = schemas(args)?;
    match &args.resources {
        Some(file) => apply(root, &args.container_id, &read(file)?, &schemas),
        None => apply(root, &args.container_id, &of_flags(args)?, &schemas).map_err(by_flag),
    }
}

fn apply(root: &StateRoot, id: &str, resources: &Resources, schemas: &[Line]) -> Result<()> {
    let c = root.lock_made(id)?;
    match c.status().0 {
        Status::Created | Status::Running | Status::Paused => {}
        status => return Err(super::not_running(&c, status, "update")),
    }
    let cgroup = c.cgroup();
    let hierarchies = cgroup::probe()?;
    let Some(now) = cgroup.in_force(&hierarchies) else {
        return Err(Error::unsupported(format!("container {id:?}"), "cannot be updated: it has no cgroup"));
    };
    let mut warnings = Vec::new();
    let plan = update::plan(resources, &hierarchies, &now, &mut warnings)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let rdt = &c.record.rdt;
    let old = match schemas.first() {
        None => Vec::new(),
        Some(first) if rdt.is_none() => {
            let what = "linux.intelRdt was not set when the container was created";
            return Err(Error::unsupported(&first.at, what));
        }
        Some(_) => rdt.change(schemas)?,
    };
    cgroup.update(&plan).inspect_err(|_| rdt.put_back(&old))
}

/// `linux.intelRdt` has no place in the JSON of resources: these flags go with it, too.
fn schemas(args: &Update) -> Result<Vec<Line>> {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let l3 = rdt::l3("--l3-cache-schema", &text(&args.l3_cache_schema))?;
    Ok(l3.into_iter().chain(rdt::mb("--mem-bw-schema", &text(&args.mem_bw_schema))?).collect())
}

/// `--resources FILE`, or `-` for standard input.
fn read(file: &Path) -> Result<Resources> {
    let at = "--resources";
    let text = match file.to_str() {
        Some("-") => bundle::whole(std::io::stdin().lock(), at)?,
        _ => {
            let open = |e| Error::io(at, format!("open {:?}", file.to_string_lossy()), &e);
            bundle::whole(File::open(file).map_err(open)?, at)?
        }
    };
    bundle::parse(&text, at)
}

/// Each flag is one property.
fn of_flags(args: &Update) -> Result<Resources> {
    for (flag, value) in
        [("--kernel-memory", &args.kernel_memory), ("--kernel-memory-tcp", &args.kernel_memory_tcp)]
    {
        if value.as_ref().is_some_and(|v| !v.is_empty()) {
            tracing::warn!("{flag}: ignored, Linux 5.16 and newer know no such limit");
        }
    }
    Ok(Resources {
        memory: Some(Memory {
            limit: bytes("--memory", args.memory.as_deref())?,
            reservation: bytes("--memory-reservation", args.memory_reservation.as_deref())?,
            swap: bytes("--memory-swap", args.memory_swap.as_deref())?,
            ..Memory::default()
        }),
        cpu: Some(Cpu {
            shares: args.cpu_share,
            quota: args.cpu_quota,
            burst: args.cpu_burst,
            period: args.cpu_period,
            realtime_runtime: args.cpu_rt_runtime,
            realtime_period: args.cpu_rt_period,
            cpus: args.cpuset_cpus.clone(),
            mems: args.cpuset_mems.clone(),
            idle: args.cpu_idle,
        }),
        block_io: Some(BlockIo { weight: args.blkio_weight.map(u64::from), ..BlockIo::default() }),
        pids: Some(Pids { limit: args.pids_limit }),
        ..Resources::default()
    })
}

/// A number of bytes as Docker's units have it, 1024 each: `512M`, `1.5 GiB`, `64kb`; -1 is no limit.
fn bytes(flag: &str, text: Option<&str>) -> Result<Option<i64>> {
    let Some(text) = text.map(str::trim).filter(|t| !t.is_empty()) else { return Ok(None) };
    if text == "-1" {
        return Ok(Some(-1));
    }
    let bad = || Error::invalid(flag, format!("{text:?} is no number of bytes like 67108864 or 64M"));
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start().to_ascii_lowercase());
    let prefix = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let exponent = ["", "k", "m", "g", "t", "p"].iter().position(|p| *p == prefix).ok_or_else(bad)?;
    let factor = 1i64 << (10 * exponent);
    let value = match number.parse::<i64>() {
        Ok(n) => n.checked_mul(factor),
        // Only what is written with a point needs to be a fraction.
        Err(_) => {
            number.parse::<f64>().ok().filter(|_| number.contains('.')).map(|n| (n * factor as f64) as i64)
        }
    };
    value.ok_or_else(bad).map(Some)
}

/// Properties and the flags that set them.
const FLAGS: [(&str, &str); 14] = [
    ("memory.limit", "--memory"),
    ("memory.reservation", "--memory-reservation"),
    ("memory.swap", "--memory-swap"),
    ("cpu.shares", "--cpu-share"),
    ("cpu.quota", "--cpu-quota"),
    ("cpu.burst", "--cpu-burst"),
    ("cpu.period", "--cpu-period"),
    ("cpu.realtimeRuntime", "--cpu-rt-runtime"),
    ("cpu.realtimePeriod", "--cpu-rt-period"),
    ("cpu.cpus", "--cpuset-cpus"),
    ("cpu.mems", "--cpuset-mems"),
    ("cpu.idle", "--cpu-idle"),
    ("blockIO.weight", "--blkio-weight"),
    ("pids.limit", "--pids-limit"),
];

/// Who set a flag is told of the flag. A system call's words stay: files of cgroups have the same names as properties.
fn by_flag(e: Error) -> Error {
    let word = |word: &str, short: bool| {
        let name = word.trim_end_matches([',', ';', ':']);
        let property = name.strip_prefix("linux.resources.").or(short.then_some(name));
        match FLAGS.iter().find(|(p, _)| Some(*p) == property) {
            Some((_, flag)) => format!("{flag}{}", &word[name.len()..]),
            None => word.to_string(),
        }
    };
    let say = |text: &str, short| text.split(' ').map(|w| word(w, short)).collect::<Vec<_>>().join(" ");
    let rule = e.errno().is_none();
    Error {
        kind: e.kind,
        at: say(&e.at, false),
        what: say(&e.what, rule),
        hint: e.hint.map(|h| say(&h, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_what_dockers_units_make_of_them() {
        for (text, n) in [
            ("-1", -1),
            ("0", 0),
            ("67108864", 64 << 20),
            ("64M", 64 << 20),
            ("64m", 64 << 20),
            ("64MB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("32kb", 32 << 10),
            ("7b", 7),
            ("1.5g", 3 << 29),
            ("2T", 2 << 40),
            ("1p", 1 << 50),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(bytes("--memory", Some(text)), Ok(Some(n)), "{text}");
        }
        assert_eq!(bytes("--memory", None), Ok(None));
        assert_eq!(bytes("--memory", Some("")), Ok(None));
        for text in
            ["-2", "x", "64Q", "M", "1.2.3", ".", "9223372036854775808", "9000P", "64M1", "6 4", "1e3", "+5"]
        {
            let e = bytes("--memory", Some(text)).unwrap_err().to_string();
            assert_eq!(e, format!("--memory: {text:?} is no number of bytes like 67108864 or 64M"));
        }
    }

    #[test]
    fn errors_name_the_flag() {
        for (at, what, message) in [
            (
                "linux.resources.memory.swap",
                "10 is below memory.limit 20",
                "--memory-swap: 10 is below --memory 20",
            ),
            ("linux.resources.cpu.burst", "2 is above cpu.quota 1", "--cpu-burst: 2 is above --cpu-quota 1"),
            ("linux.resources.pids.limit", "-2 is below -1", "--pids-limit: -2 is below -1"),
        ] {
            assert_eq!(by_flag(Error::invalid(at, what)).to_string(), message);
        }
        let e =
            Error::os("linux.resources.memory.limit", "write \"1\" to memory.limit_in_bytes", libc::EBUSY);
        assert_eq!(by_flag(e).what, "write \"1\" to memory.limit_in_bytes");
    }
}
