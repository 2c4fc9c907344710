//! The user of an image's configuration, by the image's own passwd(5) and group(5).

use super::view::View;
use crate::config::User;
use crate::error::{Error, Result};

/// Largest passwd or group file that is read.
const MAX: u64 = 4 << 20;

/// Resolves `user`, `uid`, `user:group`, `uid:gid` and so on (image-spec config.md, `config.User`). Digits are always a
/// number, never a name (CVE-2024-9676 and its kin: an entry named `0`).
pub fn resolve(view: &View, spec: &str) -> Result<User> {
    let file = |path: &[u8]| view.read(path, MAX).map(Option::unwrap_or_default);
    if spec.is_empty() {
        return parse("0", &file(b"etc/passwd")?, &file(b"etc/group")?);
    }
    // Numbers alone need no file.
    if let Some((user, group)) = spec.split_once(':') {
        if !user.is_empty()
            && user.bytes().chain(group.bytes()).all(|b| b.is_ascii_digit())
            && !group.is_empty()
        {
            return parse(spec, b"", b"");
        }
    }
    parse(spec, &file(b"etc/passwd")?, &file(b"etc/group")?)
}

fn parse(spec: &str, passwd: &[u8], group: &[u8]) -> Result<User> {
    let (user, group_name) = match spec.split_once(':') {
        Some((u, g)) if !g.is_empty() => (u, Some(g)),
        Some((u, _)) => (u, None),
        None => (spec, None),
    };
    let at = "config.User";
    let users = lines(passwd);
    let entry = match number(at, user)? {
        Some(uid) => users.iter().find(|f| id(f.get(2)) == Some(uid)),
        None => users.iter().find(|f| f[0] == user.as_bytes()),
    };
    let uid = match (number(at, user)?, entry.and_then(|f| id(f.get(2)))) {
        (Some(uid), _) | (None, Some(uid)) => uid,
        (None, None) => {
            return Err(Error::invalid(at, format!("user {user:?} is not in the image's /etc/passwd")));
        }
    };
    let groups = lines(group);
    let (gid, more) = match group_name {
        // With a group, those of the user are ignored.
        Some(name) => {
            let of_name = || groups.iter().find(|f| f[0] == name.as_bytes()).and_then(|f| id(f.get(2)));
            let gid = match number(at, name)? {
                Some(gid) => gid,
                None => of_name().ok_or_else(|| {
                    Error::invalid(at, format!("group {name:?} is not in the image's /etc/group"))
                })?,
            };
            (gid, Vec::new())
        }
        None => {
            let gid = entry.and_then(|f| id(f.get(3))).unwrap_or(0);
            (gid, entry.map_or_else(Vec::new, |e| supplementary(&groups, e[0], gid)))
        }
    };
    Ok(User {
        uid: Some(uid),
        gid: Some(gid),
        additional_gids: (!more.is_empty()).then_some(more),
        ..User::default()
    })
}

fn supplementary(groups: &[Vec<&[u8]>], user: &[u8], gid: i64) -> Vec<i64> {
    let is_member = |f: &&Vec<&[u8]>| f.get(3).is_some_and(|m| m.split(|b| *b == b',').any(|n| n == user));
    let mut out: Vec<i64> =
        groups.iter().filter(is_member).filter_map(|f| id(f.get(2))).filter(|g| *g != gid).collect();
    out.sort_unstable();
    out.dedup();
    out
}

/// Fields of the lines that have a name.
fn lines(file: &[u8]) -> Vec<Vec<&[u8]>> {
    file.split(|b| *b == b'\n')
        .map(|l| l.trim_ascii_end().split(|b| *b == b':').collect::<Vec<_>>())
        .filter(|f| !f[0].is_empty() && !f[0].starts_with(b"#"))
        .collect()
}

fn id(field: Option<&&[u8]>) -> Option<i64> {
    let text = std::str::from_utf8(field?).ok()?;
    text.parse::<u32>().ok().filter(|n| *n != u32::MAX).map(i64::from)
}

/// The number that a word of digits is; too large is an error and no name.
fn number(at: &str, word: &str) -> Result<Option<i64>> {
    if word.is_empty() || !word.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match id(Some(&word.as_bytes())) {
        Some(n) => Ok(Some(n)),
        None => Err(Error::invalid(at, format!("{word:?} is too large for an id"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0::/root:/bin/sh\n# c\nweb:x:33:44::/:\n1000:x:0:0::/:\nbad:x:y:z\n\n";
    const GROUP: &[u8] = b"root:x:0:\nwww:x:44:\ndata:x:50:web,x\nlog:x:7:x,web\nmore:x:50:web\n0:x:99:\n";

    #[test]
    fn users_follow_the_image() {
        for (spec, uid, gid, more) in [
            ("0", 0, 0, &[][..]),
            ("web", 33, 44, &[7, 50]),
            ("33", 33, 44, &[7, 50]),
            ("web:data", 33, 50, &[]),
            ("web:0", 33, 0, &[]),
            ("web:", 33, 44, &[7, 50]),
            ("1000", 1000, 0, &[]), // no user of that number, though one of that name
            ("4000:4001", 4000, 4001, &[]),
        ] {
            let u = parse(spec, PASSWD, GROUP).unwrap();
            let got = (u.uid.unwrap(), u.gid.unwrap(), u.additional_gids.unwrap_or_default());
            assert_eq!(got, (uid, gid, more.to_vec()), "{spec}");
        }
    }

    #[test]
    fn unknown_and_huge_users_are_refused() {
        for spec in
            ["nobody", "web:nogroup", "4294967295", "99999999999999999999", "0:4294967296", "bad", ":0"]
        {
            assert!(parse(spec, PASSWD, GROUP).is_err(), "{spec}");
        }
    }
}
