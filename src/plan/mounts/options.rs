//! config.md#linux-mount-options: each string is a flag of this table or data of the file system.

use crate::error::{Error, Result};
use crate::plan::step::Attr;

pub const RDONLY: u64 = 0x1;
pub const NOSUID: u64 = 0x2;
pub const NODEV: u64 = 0x4;
pub const NOEXEC: u64 = 0x8;
pub const NOATIME: u64 = 0x10;
pub const STRICTATIME: u64 = 0x20;
/// MOUNT_ATTR__ATIME: a field of three values (0 is relatime), not bits; mount_setattr(2) wants it cleared as a whole.
pub const ATIME: u64 = 0x70;
pub const NODIRATIME: u64 = 0x80;
pub const NOSYMFOLLOW: u64 = 0x20_0000;

/// What the option strings of one mount come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A bind mount, with what is mounted below its source or without.
    pub bind: Option<bool>,
    pub remount: bool,
    /// Of the mount itself; `clear` has what was asked to be off.
    pub attr: Attr,
    /// Of the mount and all below it.
    pub rattr: Attr,
    /// MS_SHARED and its like, with or without what lies below, in order.
    pub propagation: Vec<(u64, bool)>,
    /// Flags of the superblock that fsconfig(2) knows by name.
    pub superblock: Vec<&'static str>,
    /// Data of the file system: key and value.
    pub data: Vec<(String, Option<String>)>,
    pub copy_up: bool,
    /// `i_version` of ext4; other file systems have none or always.
    pub iversion: bool,
    pub idmap: Option<Idmap>,
    /// crun's `src-nofollow`, `dest-nofollow` and `copy-symlink`.
    pub source_nofollow: bool,
    pub target_nofollow: bool,
    pub copy_link: bool,
}

/// `idmap` and `ridmap`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Idmap {
    /// All below too.
    pub deep: bool,
    /// crun's `idmap=uids=0-1-10;gids=…`, as written behind the first `=`.
    pub maps: Option<String>,
}

#[derive(Clone, Copy)]
enum Effect {
    Set(u64),
    Clear(u64),
    Noatime,
    Strictatime,
    Relatime,
    /// Back to the kernel's rule, relatime, where the named one was in force.
    NotNoatime,
    NotStrictatime,
    All(u64),
    NoneOf(u64),
    AllAtime(u64),
    Propagation(u64, bool),
    Superblock(&'static str, &'static str),
    Bind(bool),
    Remount,
    CopyUp,
    Iversion(bool),
    IdMapped(bool),
    SourceNofollow,
    TargetNofollow,
    CopyLink,
    Nothing,
}

use Effect::*;

const TABLE: &[(&str, Effect)] = &[
    ("defaults", Nothing),
    ("bind", Bind(false)),
    ("rbind", Bind(true)),
    ("remount", Remount),
    ("ro", Set(RDONLY)),
    ("rw", Clear(RDONLY)),
    ("nosuid", Set(NOSUID)),
    ("suid", Clear(NOSUID)),
    ("nodev", Set(NODEV)),
    ("dev", Clear(NODEV)),
    ("noexec", Set(NOEXEC)),
    ("exec", Clear(NOEXEC)),
    ("nodiratime", Set(NODIRATIME)),
    ("diratime", Clear(NODIRATIME)),
    ("nosymfollow", Set(NOSYMFOLLOW)),
    ("symfollow", Clear(NOSYMFOLLOW)),
    ("noatime", Noatime),
    ("atime", NotNoatime),
    ("strictatime", Strictatime),
    ("nostrictatime", NotStrictatime),
    ("relatime", Relatime),
    ("norelatime", Nothing), // the kernel's rule without another one is relatime
    ("rro", All(RDONLY)),
    ("rrw", NoneOf(RDONLY)),
    ("rnosuid", All(NOSUID)),
    ("rsuid", NoneOf(NOSUID)),
    ("rnodev", All(NODEV)),
    ("rdev", NoneOf(NODEV)),
    ("rnoexec", All(NOEXEC)),
    ("rexec", NoneOf(NOEXEC)),
    ("rnodiratime", All(NODIRATIME)),
    ("rdiratime", NoneOf(NODIRATIME)),
    ("rnosymfollow", All(NOSYMFOLLOW)),
    ("rsymfollow", NoneOf(NOSYMFOLLOW)),
    ("rnoatime", AllAtime(NOATIME)),
    ("rstrictatime", AllAtime(STRICTATIME)),
    ("rrelatime", AllAtime(0)),
    ("ratime", AllAtime(0)),
    ("rnorelatime", AllAtime(0)),
    ("rnostrictatime", AllAtime(0)),
    ("shared", Propagation(libc::MS_SHARED, false)),
    ("rshared", Propagation(libc::MS_SHARED, true)),
    ("slave", Propagation(libc::MS_SLAVE, false)),
    ("rslave", Propagation(libc::MS_SLAVE, true)),
    ("private", Propagation(libc::MS_PRIVATE, false)),
    ("rprivate", Propagation(libc::MS_PRIVATE, true)),
    ("unbindable", Propagation(libc::MS_UNBINDABLE, false)),
    ("runbindable", Propagation(libc::MS_UNBINDABLE, true)),
    ("sync", Superblock("sync", "async")),
    ("async", Superblock("async", "sync")),
    ("dirsync", Superblock("dirsync", "")),
    ("lazytime", Superblock("lazytime", "nolazytime")),
    ("nolazytime", Superblock("nolazytime", "lazytime")),
    ("mand", Superblock("mand", "nomand")), // without effect since Linux 5.15
    ("nomand", Superblock("nomand", "mand")),
    ("iversion", Iversion(true)),
    ("noiversion", Iversion(false)),
    ("silent", Nothing), // fsopen(2) gives its words to us alone, never to the kernel's log
    ("loud", Nothing),
    ("tmpcopyup", CopyUp),
    ("idmap", IdMapped(false)),
    ("ridmap", IdMapped(true)),
    ("src-nofollow", SourceNofollow),
    ("dest-nofollow", TargetNofollow),
    ("copy-symlink", CopyLink),
];

/// Names for `features`: every option that is ours rather than the file system's.
pub fn known() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|t| t.0)
}

/// The propagation that an option names, as `linux.rootfsPropagation` does too.
pub fn propagation(name: &str) -> Option<(u64, bool)> {
    TABLE.iter().find_map(|t| match t {
        (n, Propagation(flag, recursive)) if *n == name => Some((*flag, *recursive)),
        _ => None,
    })
}

/// Reads the strings in order: of two that contradict each other the last one wins.
pub fn parse(at: &str, list: &[String]) -> Result<Options> {
    let mut o = Options::default();
    for (n, option) in list.iter().enumerate() {
        if option.contains('\0') {
            return Err(Error::invalid(format!("{at}.options[{n}]"), format!("{option:?} has a NUL byte")));
        }
        match TABLE.iter().find(|t| t.0 == option) {
            Some((_, effect)) => o.apply(*effect),
            None => match option.split_once('=') {
                Some((name @ ("idmap" | "ridmap"), maps)) => {
                    o.idmap = Some(Idmap { deep: name == "ridmap", maps: Some(maps.to_string()) });
                }
                _ => o.data.extend(data(option)),
            },
        }
    }
    Ok(o)
}

impl Options {
    fn apply(&mut self, effect: Effect) {
        match effect {
            Set(bit) => self.attr.put(bit, true),
            Clear(bit) => self.attr.put(bit, false),
            Noatime => self.attr.put_atime(NOATIME),
            Strictatime => self.attr.put_atime(STRICTATIME),
            Relatime => self.attr.put_atime(0),
            NotNoatime if self.attr.set & STRICTATIME == 0 => self.attr.put_atime(0),
            NotStrictatime if self.attr.set & NOATIME == 0 => self.attr.put_atime(0),
            NotNoatime | NotStrictatime | Nothing => {}
            All(bit) => self.rattr.put(bit, true),
            NoneOf(bit) => self.rattr.put(bit, false),
            AllAtime(value) => self.rattr.put_atime(value),
            Propagation(flag, recursive) => self.propagation.push((flag, recursive)),
            Superblock(name, opposite) => {
                self.superblock.retain(|s| *s != opposite && *s != name);
                self.superblock.push(name);
            }
            // A recursive one stays so: `rbind` includes what `bind` asks for.
            Bind(recursive) => self.bind = Some(recursive || self.bind == Some(true)),
            Remount => self.remount = true,
            CopyUp => self.copy_up = true,
            Iversion(on) => self.iversion = on,
            IdMapped(deep) => self.idmap = Some(Idmap { deep, maps: None }),
            SourceNofollow => self.source_nofollow = true,
            TargetNofollow => self.target_nofollow = true,
            CopyLink => self.copy_link = true,
        }
    }
}

impl Attr {
    fn put(&mut self, bit: u64, on: bool) {
        let (to, from) = if on { (&mut self.set, &mut self.clear) } else { (&mut self.clear, &mut self.set) };
        *to |= bit;
        *from &= !bit;
    }

    fn put_atime(&mut self, value: u64) {
        self.set = self.set & !ATIME | value;
        self.clear |= ATIME;
    }
}

/// A string of data has as many parameters as it has commas outside of quotes: mount(2) would read it so.
fn data(option: &str) -> Vec<(String, Option<String>)> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = option.split(|c| {
        let separates = c == ',' && !quoted && !escaped;
        quoted ^= c == '"';
        escaped = c == '\\' && !escaped;
        separates
    });
    let unquote = |v: &str| v.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(v).to_string();
    parts
        .filter(|p| !p.is_empty())
        .map(|p| match p.split_once('=') {
            Some((key, value)) => (key.to_string(), Some(unquote(value))),
            None => (p.to_string(), None),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &[&str]) -> Options {
        parse("mounts[0] (/x)", &list.iter().map(|s| s.to_string()).collect::<Vec<_>>()).unwrap()
    }

    fn attr(set: u64, clear: u64) -> Attr {
        Attr { set, clear }
    }

    #[test]
    fn attributes_are_set_and_cleared_and_the_last_one_wins() {
        for (list, want) in [
            (&["ro", "nosuid", "nodev", "noexec"][..], attr(0xf, 0)),
            (&["rw", "suid", "dev", "exec"], attr(0, 0xf)),
            (&["ro", "rw"], attr(0, RDONLY)),
            (&["rw", "ro"], attr(RDONLY, 0)),
            (&["nosymfollow", "nodiratime"], attr(NOSYMFOLLOW | NODIRATIME, 0)),
            (&["symfollow", "diratime"], attr(0, NOSYMFOLLOW | NODIRATIME)),
            (&["noatime"], attr(NOATIME, ATIME)),
            (&["strictatime"], attr(STRICTATIME, ATIME)),
            (&["relatime"], attr(0, ATIME)),
            (&["noatime", "strictatime"], attr(STRICTATIME, ATIME)),
            (&["noatime", "atime"], attr(0, ATIME)),
            (&["strictatime", "nostrictatime"], attr(0, ATIME)),
            (&["noatime", "norelatime"], attr(NOATIME, ATIME)),
            (&["noatime", "nostrictatime"], attr(NOATIME, ATIME)),
            (&["norelatime"], attr(0, 0)),
            (&["defaults", "silent", "loud"], attr(0, 0)),
        ] {
            assert_eq!(of(list).attr, want, "{list:?}");
            assert!(of(list).rattr.is_empty() && of(list).data.is_empty(), "{list:?}");
        }
    }

    #[test]
    fn recursive_attributes_stay_apart_and_clear_the_whole_atime_field() {
        for (list, want) in [
            (&["rro", "rnosuid", "rnodev", "rnoexec"][..], attr(0xf, 0)),
            (&["rrw", "rsuid", "rdev", "rexec"], attr(0, 0xf)),
            (&["rnosymfollow", "rnodiratime"], attr(NOSYMFOLLOW | NODIRATIME, 0)),
            (&["rsymfollow", "rdiratime"], attr(0, NOSYMFOLLOW | NODIRATIME)),
            (&["rnoatime"], attr(NOATIME, ATIME)),
            (&["rstrictatime"], attr(STRICTATIME, ATIME)),
            (&["rnoatime", "ratime"], attr(0, ATIME)),
            (&["rrelatime"], attr(0, ATIME)),
            (&["rnorelatime"], attr(0, ATIME)),
            (&["rnostrictatime"], attr(0, ATIME)),
        ] {
            assert_eq!((of(list).rattr, of(list).attr), (want, attr(0, 0)), "{list:?}");
        }
    }

    #[test]
    fn data_is_what_no_flag_is() {
        let pair = |k: &str, v: &str| (k.to_string(), Some(v.to_string()));
        for (list, want) in [
            (&["size=64k", "mode=755"][..], vec![pair("size", "64k"), pair("mode", "755")]),
            (&["size=64k,mode=755"], vec![pair("size", "64k"), pair("mode", "755")]),
            (&["newinstance", "", "ro"], vec![("newinstance".into(), None)]),
            (&["context=\"a:b:c0,c1\""], vec![pair("context", "a:b:c0,c1")]),
            (&["lowerdir=/a\\,b:/c"], vec![pair("lowerdir", "/a\\,b:/c")]),
            (&["empty="], vec![pair("empty", "")]),
        ] {
            assert_eq!(of(list).data, want, "{list:?}");
        }
    }

    #[test]
    fn other_flags() {
        assert_eq!(of(&["bind"]).bind, Some(false));
        assert_eq!(of(&["rbind", "bind"]).bind, Some(true));
        assert_eq!(
            of(&["sync", "dirsync", "lazytime", "mand"]).superblock,
            ["sync", "dirsync", "lazytime", "mand"]
        );
        assert_eq!(of(&["sync", "async", "lazytime", "nolazytime"]).superblock, ["async", "nolazytime"]);
        let idmap = |list: &[&str]| of(list).idmap.map(|i| (i.deep, i.maps));
        assert_eq!((idmap(&["idmap"]), idmap(&["ridmap"])), (Some((false, None)), Some((true, None))));
        assert_eq!(idmap(&["ridmap=uids=0-1-1"]), Some((true, Some("uids=0-1-1".into()))));
        let links = of(&["src-nofollow", "dest-nofollow", "copy-symlink"]);
        assert!(links.source_nofollow && links.target_nofollow && links.copy_link);
        assert!(of(&["tmpcopyup"]).copy_up && of(&["remount"]).remount && of(&["iversion"]).iversion);
        assert!(!of(&["iversion", "noiversion"]).iversion);
        let want = [(libc::MS_SHARED, true), (libc::MS_SLAVE, false)];
        assert_eq!(of(&["rshared", "slave"]).propagation, want);
        let e = parse("mounts[2] (/x)", &["ro".into(), "a\0".into()]).unwrap_err();
        assert_eq!(e.to_string(), "mounts[2] (/x).options[1]: \"a\\0\" has a NUL byte");
    }

    /// The options that the specification says a runtime MUST or SHOULD support.
    #[test]
    fn every_option_of_the_specification_is_known() {
        let spec = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
            nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime \
            rbind rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime \
            rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable \
            rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap";
        for option in spec.split_ascii_whitespace() {
            assert!(known().any(|k| k == option), "{option}");
        }
    }
}
