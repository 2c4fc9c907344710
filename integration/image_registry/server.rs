//! A registry of the test's own, that can behave as badly as is asked.

use crate::make::Layout;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }
}

/// What is answered. The length that is told may be a lie.
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<u64>,
    /// Sent again and again behind the body, until nobody reads on.
    endless: Vec<u8>,
    hangs: bool,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, headers: vec![], body: vec![], length: None, endless: vec![], hangs: false }
    }

    /// In place of one of this name.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|h| h.0 != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Claims as many bytes as there are, and sends only these.
    pub fn cut(mut self, bytes: usize) -> Self {
        self.length = Some(self.body.len() as u64);
        self.body.truncate(bytes);
        self
    }

    pub fn claims(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// Keeps the connection when all is said.
    pub fn hangs(mut self) -> Self {
        self.hangs = true;
        self
    }

    /// Tells no length and never ends.
    pub fn endless(mut self, more: &[u8]) -> Self {
        self.endless = more.to_vec();
        self
    }

    fn send(self, stream: &mut TcpStream, head_only: bool) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        self.headers.iter().for_each(|(n, v)| head.push_str(&format!("{n}: {v}\r\n")));
        if self.endless.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", self.length.unwrap_or(self.body.len() as u64)));
        }
        stream.write_all(head.as_bytes())?;
        stream.write_all(b"\r\n")?;
        if head_only {
            return Ok(());
        }
        stream.write_all(&self.body)?;
        while !self.endless.is_empty() {
            stream.write_all(&self.endless)?;
        }
        if self.hangs {
            let _ = stream.read(&mut [0]); // until the other side goes
        }
        Ok(())
    }
}

/// A server on a port of its own, until it is dropped.
pub struct Server {
    pub address: String,
    seen: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    /// Nobody answers any more.
    is_over: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Server {
    pub fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (seen, stop) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<AtomicBool>::default());
        let (log, over, answer) = (seen.clone(), stop.clone(), Arc::new(answer));
        let left = Arc::downgrade(&answer);
        let is_over = move || left.strong_count() == 0;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Self { address, seen, stop, is_over: Box::new(is_over) }
    }

    /// What was asked so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub fn count(&self, method: &str, part: &str) -> usize {
        self.seen().iter().filter(|r| r.is(method, part)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.address);
        // What it answers with removes its files, before the process ends.
        for _ in 0..200 {
            if (self.is_over)() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Reply) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    let Ok(1..) = reader.read_line(&mut line) else { return };
    let mut words = line.split(' ').map(str::to_string);
    let (method, path) = (words.next().unwrap(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        let Ok(1..) = reader.read_line(&mut line) else { return }; // the client was killed
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_string());
    }
    let length = headers.get("content-length").map_or(0, |l| l.parse().unwrap());
    let mut body = Vec::new();
    if reader.take(length).read_to_end(&mut body).is_err() {
        return;
    }
    let request = Request { method, path, headers, body };
    log.lock().unwrap().push(request.clone());
    // Whom it serves may have seen enough.
    let _ = answer(&request).send(&mut stream, request.method == "HEAD");
}

/// A registry that has nothing and takes everything, but for what `special` says.
pub fn taking(special: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Server {
    Server::new(move |q| {
        special(q).unwrap_or_else(|| match &q.method[..] {
            "HEAD" => Reply::new(404),
            "POST" => Reply::new(202).header("Location", "/v2/x/blobs/uploads/1?state=a"),
            "PUT" => Reply::new(201),
            _ => Reply::new(405),
        })
    })
}

/// The files of a layout as a repository `x` whose every tag is its first image.
pub struct Repository {
    dir: PathBuf,
    top: String,
    kind: String,
    _layout: Layout,
}

impl Repository {
    pub fn new(layout: Layout) -> Self {
        let dir = PathBuf::from(layout.path());
        let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
        let word = |key: &str| index["manifests"][0][key].as_str().unwrap().to_string();
        Self { top: word("digest"), kind: word("mediaType"), dir, _layout: layout }
    }

    pub fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        fs::read(self.dir.join("blobs").join(digest.replace(':', "/"))).ok()
    }

    pub fn manifest(&self) -> Value {
        serde_json::from_slice(&self.blob(&self.top).unwrap()).unwrap()
    }

    pub fn digest(&self) -> &str {
        &self.top
    }

    /// The digest of a layer.
    pub fn layer(&self, n: usize) -> String {
        self.manifest()["layers"][n]["digest"].as_str().unwrap().into()
    }

    /// As a good registry answers.
    pub fn answer(&self, r: &Request) -> Reply {
        let Some(rest) = r.path.strip_prefix("/v2/x/") else { return Reply::new(404) };
        let (what, name) = rest.split_once('/').unwrap();
        let digest = if what == "manifests" && !name.contains(':') { &self.top } else { name };
        let Some(bytes) = self.blob(digest) else { return Reply::new(404) };
        if what == "manifests" {
            let kind = match serde_json::from_slice::<Value>(&bytes).unwrap()["mediaType"].as_str() {
                Some(kind) => kind.to_string(),
                None => self.kind.clone(),
            };
            return Reply::new(200)
                .header("Content-Type", kind)
                .header("Docker-Content-Digest", digest)
                .body(bytes);
        }
        let start =
            r.header("range").map(|r| r.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
        match start {
            Some(start) => {
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                let rest: &[u8] = &bytes[start..];
                Reply::new(206).header("Content-Range", range).body(rest)
            }
            None => Reply::new(200).body(bytes),
        }
    }
}
