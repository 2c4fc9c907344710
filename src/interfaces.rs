//! config-linux.md#network-devices: interfaces of the host moved into the container's network namespace, by
//! rtnetlink(7).

use crate::error::{Result, os};
use crate::plan::net::Interface;
use crate::plan::spawn::NEWNET;
use crate::sys::{Errno, Sys, fd, ns};
use std::os::fd::{AsRawFd, OwnedFd};

const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = REQUEST | libc::NLM_F_ACK as u16;
const NEW: u16 = ACK | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const DUMP: u16 = REQUEST | libc::NLM_F_DUMP as u16;
/// Lengths of `nlmsghdr`, `ifinfomsg` and `ifaddrmsg`.
const HEAD: usize = 16;
const LINK: usize = 16;
const ADDRESS: usize = 8;

/// The number of an interface in our own network namespace.
pub fn index(interface: &Interface) -> Result<u32> {
    nix::net::if_::if_nametoindex(interface.name.as_str())
        .map_err(os(&interface.at, format!("look up {:?}", interface.name)))
}

/// Moves each interface into the network namespace of `pid`, under its new name, with its permanent global addresses,
/// and sets it up. It never comes back: the kernel returns hardware when the namespace ends.
pub fn hand_over(interfaces: &[Interface], pid: i32) -> Result<()> {
    let Some(first) = interfaces.first() else { return Ok(()) };
    let (theirs, host, inside) =
        sockets(pid).map_err(os(&first.at, "open rtnetlink in the container's network namespace"))?;
    for interface in interfaces {
        let index = index(interface)?;
        let call = |what: &'static str| os(&interface.at, format!("{what} {:?}", interface.name));
        let addresses = addresses(&host, index).map_err(call("RTM_GETADDR of"))?;
        let before = links(&inside).map_err(call("RTM_GETLINK for"))?;
        let mut message = link(index, 0);
        attribute(&mut message, libc::IFLA_NET_NS_FD, &theirs.as_raw_fd().to_ne_bytes());
        attribute(&mut message, libc::IFLA_IFNAME, &[interface.rename.as_bytes(), b"\0"].concat());
        ask(&host, libc::RTM_NEWLINK, ACK, &message).map_err(call("move (RTM_NEWLINK)"))?;
        // Name and number may both be the kernel's choice.
        let after = links(&inside).map_err(call("RTM_GETLINK for"))?;
        let moved = after.into_iter().find(|i| !before.contains(i)).ok_or(Errno::ENODEV);
        let moved = moved.map_err(call("find in its new namespace"))?;
        for mut address in addresses {
            address[4..8].copy_from_slice(&moved.to_ne_bytes());
            ask(&inside, libc::RTM_NEWADDR, NEW, &address).map_err(call("RTM_NEWADDR of"))?;
        }
        ask(&inside, libc::RTM_NEWLINK, ACK, &link(moved, libc::IFF_UP as u32))
            .map_err(call("set up (RTM_NEWLINK)"))?;
    }
    Ok(())
}

/// The namespace of `pid`, and sockets in our own and in that one: a socket stays where it was made.
fn sockets(pid: i32) -> Sys<(OwnedFd, OwnedFd, OwnedFd)> {
    let open = |path: String| {
        std::fs::File::open(path)
            .map(OwnedFd::from)
            .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
    };
    let theirs = open(format!("/proc/{pid}/ns/net"))?;
    let ours = open("/proc/self/ns/net".to_string())?;
    let host = ns::route_socket()?;
    ns::enter(&theirs, NEWNET)?;
    let inside = ns::route_socket();
    ns::enter(&ours, NEWNET)?;
    Ok((theirs, host, inside?))
}

/// `ifinfomsg`; a flag that is given is set, all others stay.
fn link(index: u32, flag: u32) -> Vec<u8> {
    let mut m = vec![0; LINK];
    m[4..8].copy_from_slice(&index.to_ne_bytes());
    m[8..12].copy_from_slice(&flag.to_ne_bytes());
    m[12..16].copy_from_slice(&flag.to_ne_bytes());
    m
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend((4 + value.len() as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The numbers of all interfaces.
fn links(socket: &OwnedFd) -> Sys<Vec<u32>> {
    let list = ask(socket, libc::RTM_GETLINK, DUMP, &[0; LINK])?;
    Ok(list.iter().filter_map(|m| word(m, 4)).collect())
}

/// The addresses of an interface that it keeps: permanent and global, without what belongs to its old place.
fn addresses(socket: &OwnedFd, index: u32) -> Sys<Vec<Vec<u8>>> {
    let list = ask(socket, libc::RTM_GETADDR, DUMP, &[0; ADDRESS])?;
    Ok(list.iter().filter_map(|m| kept(m, index)).collect())
}

/// The request that makes this address anew; `None` unless it is permanent, global and of this interface.
fn kept(message: &[u8], index: u32) -> Option<Vec<u8>> {
    if word(message, 4)? != index || message[3] != libc::RT_SCOPE_UNIVERSE {
        return None;
    }
    let mut out = message[..ADDRESS].to_vec();
    let mut flags = u32::from(message[2]);
    let mut rest = &message[ADDRESS..];
    while let Some(len) = rest.get(..2).map(|b| usize::from(u16::from_ne_bytes([b[0], b[1]]))) {
        let (kind, value) = (u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]), rest.get(4..len)?);
        match kind {
            libc::IFA_FLAGS => flags = word(value, 0)?,
            libc::IFA_ADDRESS | libc::IFA_LOCAL | libc::IFA_BROADCAST => attribute(&mut out, kind, value),
            _ => {} // the label has the old name, the lifetime of what is permanent is none
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    (flags & libc::IFA_F_PERMANENT != 0).then_some(out)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// One request; what the kernel answers, without heads, until it is done or acknowledges.
fn ask(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> Sys<Vec<Vec<u8>>> {
    let mut request = Vec::with_capacity(HEAD + body.len());
    request.extend(((HEAD + body.len()) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]); // sequence and port: there is one request at a time
    request.extend(body);
    fd::write(socket, &request)?;
    let mut answers = Vec::new();
    let mut buf = vec![0; 64 << 10];
    loop {
        let n = fd::read(socket, &mut buf)?;
        let mut rest = &buf[..n];
        while rest.len() >= HEAD {
            let len = word(rest, 0).map_or(0, |l| l as usize);
            let body = rest.get(HEAD..len).ok_or(Errno::EPROTO)?;
            match u16::from_ne_bytes([rest[4], rest[5]]) {
                NLMSG_DONE => return Ok(answers),
                NLMSG_ERROR => {
                    return match word(body, 0).map(|e| e as i32) {
                        Some(0) => Ok(answers),
                        Some(errno) => Err(Errno::from_raw(-errno)),
                        None => Err(Errno::EPROTO),
                    };
                }
                _ => answers.push(body.to_vec()),
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(scope: u8, index: u32, flags: u32) -> Vec<u8> {
        let mut m = vec![libc::AF_INET as u8, 24, 0, scope];
        m.extend(index.to_ne_bytes());
        attribute(&mut m, libc::IFA_LOCAL, &[10, 0, 0, 1]);
        attribute(&mut m, libc::IFA_LABEL, b"eth0\0");
        attribute(&mut m, libc::IFA_FLAGS, &flags.to_ne_bytes());
        m
    }

    #[test]
    fn permanent_global_addresses_are_kept_without_their_label() {
        let permanent = libc::IFA_F_PERMANENT;
        let mut want = vec![libc::AF_INET as u8, 24, 0, 0, 7, 0, 0, 0];
        attribute(&mut want, libc::IFA_LOCAL, &[10, 0, 0, 1]);
        assert_eq!(kept(&address(0, 7, permanent), 7), Some(want));
        for other in [address(0, 8, permanent), address(libc::RT_SCOPE_LINK, 7, permanent), address(0, 7, 0)]
        {
            assert_eq!(kept(&other, 7), None);
        }
        for cut in 0..address(0, 7, permanent).len() {
            let _ = kept(&address(0, 7, permanent)[..cut], 7);
        }
    }

    #[test]
    fn attributes_are_aligned() {
        let mut m = Vec::new();
        attribute(&mut m, 3, b"eth0\0");
        assert_eq!(m, [9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0]);
    }
}
