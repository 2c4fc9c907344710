//! Names to addresses without NSS, which a static program has not: /etc/hosts, then the servers of /etc/resolv.conf
//! (RFC 1035). mDNS and what else nsswitch.conf may name is not asked.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// Resolves as this machine's files say.
#[derive(Debug)]
pub struct System;

impl Resolver for System {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        // A machine without these files has no names but localhost.
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let found = match known(host, &read("/etc/hosts")) {
            found if !found.is_empty() => found,
            _ => Servers::parse(&read("/etc/resolv.conf")).lookup(host)?,
        };
        let mut out = self.empty();
        found.into_iter().take(16).for_each(|ip| out.push(SocketAddr::new(ip, port)));
        if out.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(out) }
    }
}

/// What needs no server.
fn known(host: &str, hosts: &str) -> Vec<IpAddr> {
    if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        return vec![ip];
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let mut out = Vec::new();
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(ip) = words.next().and_then(|w| w.parse().ok()) else { continue };
        if words.any(|w| w.eq_ignore_ascii_case(name)) {
            out.push(ip);
        }
    }
    // RFC 6761: never asked of a server.
    if out.is_empty() && (name == "localhost" || name.ends_with(".localhost")) {
        out = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    out
}

/// resolv.conf(5).
#[derive(Debug, PartialEq, Eq)]
struct Servers {
    addresses: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: u32,
}

/// What a name has at a server.
enum Found {
    Addresses(Vec<IpAddr>),
    NoSuchName,
}

impl Servers {
    fn parse(text: &str) -> Self {
        let mut s = Self {
            addresses: vec![],
            search: vec![],
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if s.addresses.len() < 3 => {
                    let ip = words.next().and_then(|w| w.parse::<IpAddr>().ok());
                    s.addresses.extend(ip.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => s.search = words.take(6).map(str::to_string).collect(),
                Some("options") => words.for_each(|w| match w.split_once(':') {
                    Some(("ndots", n)) => s.ndots = n.parse().unwrap_or(1).min(15),
                    Some(("timeout", n)) => {
                        s.timeout = Duration::from_secs(n.parse().unwrap_or(5).clamp(1, 30))
                    }
                    Some(("attempts", n)) => s.attempts = n.parse().unwrap_or(2).clamp(1, 5),
                    _ => {}
                }),
                _ => {}
            }
        }
        if s.addresses.is_empty() {
            s.addresses.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
        }
        s
    }

    /// The names to try in turn.
    fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(absolute) = host.strip_suffix('.') {
            return vec![absolute.into()];
        }
        let mut out: Vec<String> =
            self.search.iter().map(|s| format!("{host}.{}", s.trim_matches('.'))).collect();
        let whole_first = host.matches('.').count() >= self.ndots;
        out.insert(if whole_first { 0 } else { out.len() }, host.into());
        out
    }

    fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut failed = None;
        for name in self.candidates(host) {
            let mut out = Vec::new();
            // IPv4 first: a machine with half of IPv6 is more frequent than one without IPv4.
            for kind in [A, AAAA] {
                match self.ask(&name, kind) {
                    Ok(Found::Addresses(found)) => out.extend(found),
                    Ok(Found::NoSuchName) => break,
                    Err(e) => {
                        failed = Some(e);
                        break;
                    }
                }
            }
            if !out.is_empty() {
                return Ok(out);
            }
            // Who is silent is so of every name.
            if failed.as_ref().is_some_and(|e| e.kind() == io::ErrorKind::TimedOut) {
                break;
            }
        }
        // Of no kind that is taken for a broken connection: all servers were asked often enough.
        failed.map_or(Ok(vec![]), |e| Err(io::Error::other(e)))
    }

    fn ask(&self, name: &str, kind: u16) -> io::Result<Found> {
        let mut failed = io::Error::other("no name server answers");
        for _ in 0..self.attempts {
            for server in &self.addresses {
                match exchange(*server, name, kind, self.timeout) {
                    Ok(found) => return Ok(found),
                    Err(e) => {
                        // recv(2) and read(2) say EAGAIN when their time is over.
                        let is_late = e.kind() == io::ErrorKind::WouldBlock;
                        let e = if is_late { io::ErrorKind::TimedOut.into() } else { e };
                        failed = io::Error::new(e.kind(), format!("name server {}: {e}", server.ip()));
                    }
                }
            }
        }
        Err(failed)
    }
}

fn exchange(server: SocketAddr, name: &str, kind: u16, timeout: Duration) -> io::Result<Found> {
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    let query = query(u16::from_be_bytes(id), name, kind)?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?; // the kernel drops what others send
    socket.send(&query)?;
    let end = Instant::now() + timeout;
    let mut buf = [0; 1500];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let n = socket.recv(&mut buf)?;
        // An answer to an earlier question, or a forged one: wait on.
        let Some(answer) = Answer::check(&buf[..n], &query) else { continue };
        if !answer.is_truncated() {
            return answer.read(kind);
        }
        let mut stream = TcpStream::connect_timeout(&server, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.write_all(&[&(query.len() as u16).to_be_bytes(), &query[..]].concat())?;
        let mut len = [0; 2];
        stream.read_exact(&mut len)?;
        let mut whole = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut whole)?;
        return Answer::check(&whole, &query).ok_or_else(broken)?.read(kind);
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is damaged")
}

/// A recursive query: header, name, type, class IN.
fn query(id: u16, name: &str, kind: u16) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    [id, 0x0100, 1, 0, 0, 0].iter().for_each(|n| out.extend(n.to_be_bytes()));
    for label in name.split('.') {
        if !(1..=63).contains(&label.len()) || !label.is_ascii() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} is no name of a host"),
            ));
        }
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
    [kind, 1].iter().for_each(|n| out.extend(n.to_be_bytes()));
    Ok(out)
}

/// A message whose header and question are those of our query.
struct Answer<'a> {
    bytes: &'a [u8],
    /// Behind the question.
    at: usize,
}

impl<'a> Answer<'a> {
    fn check(bytes: &'a [u8], query: &[u8]) -> Option<Self> {
        let answers =
            bytes.get(2)? & 0x80 != 0 && bytes.get(..2)? == &query[..2] && bytes.get(4..6)? == [0, 1];
        let question = bytes.get(12..query.len())?.eq_ignore_ascii_case(&query[12..]);
        (answers && question).then_some(Self { bytes, at: query.len() })
    }

    fn is_truncated(&self) -> bool {
        self.bytes[2] & 2 != 0
    }

    fn read(&self, kind: u16) -> io::Result<Found> {
        match self.bytes[3] & 15 {
            0 => self.records(kind).map(Found::Addresses).ok_or_else(broken),
            3 => Ok(Found::NoSuchName),
            code => Err(io::Error::other(format!("answers with code {code}"))),
        }
    }

    /// The addresses of the name asked for, or of what it is an alias of.
    fn records(&self, kind: u16) -> Option<Vec<IpAddr>> {
        let mut wanted = self.name(12)?.0;
        let mut out = Vec::new();
        let mut at = self.at;
        for _ in 0..self.number(6)? {
            let (owner, next) = self.name(at)?;
            let (found, len) = (self.number(next)?, usize::from(self.number(next + 8)?));
            let data = self.bytes.get(next + 10..next + 10 + len)?;
            if owner == wanted && found == CNAME {
                wanted = self.name(next + 10)?.0;
            } else if owner == wanted && found == kind {
                out.push(match kind {
                    A => IpAddr::from(<[u8; 4]>::try_from(data).ok()?),
                    _ => IpAddr::from(<[u8; 16]>::try_from(data).ok()?),
                });
            }
            at = next + 10 + len;
        }
        Some(out)
    }

    fn number(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes.get(at..at + 2)?.try_into().ok()?))
    }

    /// A name in lower case, and the place behind it.
    fn name(&self, start: usize) -> Option<(Vec<u8>, usize)> {
        let (mut at, mut end, mut out) = (start, None, Vec::new());
        // Pointers may form a ring, and a name has at most 127 labels.
        for _ in 0..255 {
            let len = usize::from(*self.bytes.get(at)?);
            match len {
                0 => return Some((out, end.unwrap_or(at + 1))),
                1..=63 => {
                    out.push(b'.');
                    out.extend(self.bytes.get(at + 1..at + 1 + len)?.to_ascii_lowercase());
                    at += 1 + len;
                }
                0xc0.. => {
                    end = end.or(Some(at + 2));
                    at = usize::from(self.number(at)? & 0x3fff);
                }
                _ => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn files_answer_before_servers() {
        let hosts =
            "127.0.0.1 localhost\n10.0.0.1\tReg.Test reg # x\n::2 reg.test\nbad reg.test\n#1.1.1.1 off\n";
        let ips = |host: &str| known(host, hosts).iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ");
        for (host, want) in [
            ("reg.test", "10.0.0.1 ::2"),
            ("reg.test.", "10.0.0.1 ::2"),
            ("REG", "10.0.0.1"),
            ("x", ""),
            ("off", ""),
            ("1.2.3.4", "1.2.3.4"),
            ("[::1]", "::1"),
            ("localhost", "127.0.0.1"),
            ("a.localhost", "127.0.0.1 ::1"),
        ] {
            assert_eq!(ips(host), want, "{host}");
        }
    }

    #[test]
    fn the_configuration_is_read() {
        let s = Servers::parse(
            "# x\nnameserver 1.2.3.4\nnameserver ::1 ; y\nsearch a.b c\noptions ndots:2 timeout:3 rotate\n",
        );
        assert_eq!(s.addresses, ["1.2.3.4:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!((s.timeout, s.attempts), (Duration::from_secs(3), 2));
        assert_eq!(s.candidates("x.y"), ["x.y.a.b", "x.y.c", "x.y"]);
        assert_eq!(s.candidates("x.y.z"), ["x.y.z", "x.y.z.a.b", "x.y.z.c"]);
        assert_eq!(s.candidates("x."), ["x"]);
        assert_eq!(Servers::parse("").addresses, ["127.0.0.1:53".parse().unwrap()]);
    }

    /// The answer to `query`: `flags`, and records of (owner, type, data); an owner is a pointer or a name.
    fn answer(query: &[u8], flags: [u8; 2], records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
        let mut out = query.to_vec();
        out[2..4].copy_from_slice(&flags);
        out[7] = records.len() as u8;
        for (owner, kind, data) in records {
            out.extend(*owner);
            [*kind, 1, 0, 60, data.len() as u16].iter().for_each(|n| out.extend(n.to_be_bytes()));
            out.extend(*data);
        }
        out
    }

    /// A name server that answers by datagram, and by stream what it shortened.
    fn serve(reply: impl Fn(&[u8], bool) -> Vec<Vec<u8>> + Send + 'static, questions: usize) -> Servers {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        std::thread::spawn(move || {
            for _ in 0..questions {
                let mut buf = [0; 512];
                let (n, from) = udp.recv_from(&mut buf).unwrap();
                for message in reply(&buf[..n], false) {
                    udp.send_to(&message, from).unwrap();
                    if message[2] & 2 != 0 {
                        let mut stream = tcp.accept().unwrap().0;
                        let mut query = vec![0; n + 2];
                        stream.read_exact(&mut query).unwrap();
                        let whole = reply(&query[2..], true).remove(0);
                        stream.write_all(&(whole.len() as u16).to_be_bytes()).unwrap();
                        stream.write_all(&whole).unwrap();
                    }
                }
            }
        });
        Servers {
            addresses: vec![address],
            search: vec![],
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 1,
        }
    }

    #[test]
    fn servers_are_asked_for_both_kinds_and_aliases_are_followed() {
        let reply = |q: &[u8], _: bool| {
            let alias: &[u8] = b"\x03cdn\x04test\x00";
            let forged = {
                let mut f = answer(q, [0x81, 0x80], &[(&[0xc0, 12], A, &[6, 6, 6, 6])]);
                f[0] ^= 1;
                f
            };
            vec![
                forged,
                match q[q.len() - 3] as u16 {
                    A => answer(
                        q,
                        [0x81, 0x80],
                        &[
                            (&[0xc0, 12], CNAME, alias),
                            (alias, A, &[10, 0, 0, 7]),
                            (b"\x05other\x00", A, &[9, 9, 9, 9]),
                        ],
                    ),
                    _ => answer(
                        q,
                        [0x81, 0x80],
                        &[(&[0xc0, 12], AAAA, &[0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8])],
                    ),
                },
            ]
        };
        let found = serve(reply, 2).lookup("reg.test").unwrap();
        assert_eq!(found, ["10.0.0.7".parse::<IpAddr>().unwrap(), "1:2:3:4:5:6:7:8".parse().unwrap()]);
    }

    #[test]
    fn a_shortened_answer_is_asked_for_by_stream() {
        let reply = |q: &[u8], whole: bool| match (whole, q[q.len() - 3] as u16) {
            (false, A) => vec![answer(q, [0x83, 0x80], &[])],
            (true, _) => vec![answer(q, [0x81, 0x80], &[(&[0xc0, 12], A, &[10, 0, 0, 8])])],
            _ => vec![answer(q, [0x81, 0x80], &[])],
        };
        assert_eq!(serve(reply, 2).lookup("big.test").unwrap(), ["10.0.0.8".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn silent_servers_are_given_up_and_not_asked_for_other_names() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let servers = Servers {
            addresses: vec![silent.local_addr().unwrap()],
            search: vec!["a.test".into(), "b.test".into()],
            ndots: 1,
            timeout: Duration::from_millis(50),
            attempts: 2,
        };
        let e = servers.lookup("reg.test").unwrap_err();
        assert_eq!(e.to_string(), "name server 127.0.0.1: timed out");
        assert_eq!(e.kind(), io::ErrorKind::Other, "it would be tried again");
        silent.set_nonblocking(true).unwrap();
        let questions = std::iter::from_fn(|| silent.recv(&mut [0; 512]).ok());
        assert_eq!(questions.count(), 2);
        // One that cannot answer for a name may for the next.
        let failing = |q: &[u8], _: bool| match q.windows(4).any(|w| w == b"test") {
            false => vec![answer(q, [0x81, 0x82], &[])],
            true => vec![answer(q, [0x81, 0x80], &[(&[0xc0, 12], A, &[10, 0, 0, 9])])],
        };
        let servers = Servers { search: vec!["test".into()], ..serve(failing, 3) };
        assert_eq!(servers.lookup("two.it").unwrap_or_default().len(), 1);
    }

    #[test]
    fn no_answer_makes_it_panic() {
        let query = query(7, "reg.test", A).unwrap();
        let alias: &[u8] = b"\x03cdn\x04test\x00";
        let good = answer(&query, [0x81, 0x80], &[(&[0xc0, 12], CNAME, alias), (alias, A, &[10, 0, 0, 7])]);
        let mut n = 1u64;
        let mut random = |below: usize| {
            n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (n >> 33) as usize % below
        };
        for _ in 0..50_000 {
            let mut bytes = good.clone();
            for _ in 0..=random(6) {
                let at = random(bytes.len());
                bytes[at] = [0, 0xc0, 0xff, 12, random(256) as u8][random(5)];
            }
            bytes.truncate(random(bytes.len() + 40).max(1));
            let _ = Answer::check(&bytes, &query).map(|a| a.read(A));
        }
    }

    #[test]
    fn unknown_names_and_damaged_answers_end() {
        assert!(serve(|q, _| vec![answer(q, [0x81, 0x83], &[])], 1).lookup("no.test").unwrap().is_empty());
        for damaged in [
            |q: &[u8]| answer(q, [0x81, 0x82], &[]), // server failure
            |q: &[u8]| answer(q, [0x81, 0x80], &[(&[0xc0, 26], A, &[1, 1, 1, 1])]), // a pointer to itself
            |q: &[u8]| answer(q, [0x81, 0x80], &[(&[0xc0, 12], A, &[1, 1, 1])]),
            |q: &[u8]| {
                let mut a = answer(q, [0x81, 0x80], &[]);
                a[7] = 200;
                a
            },
        ] {
            assert!(serve(move |q, _| vec![damaged(q)], 2).lookup("bad.test").is_err());
        }
        assert!(query(1, &"x".repeat(64), A).is_err() && query(1, "a..b", A).is_err());
    }
}
