//! HTTP to one registry: rights, redirects, and another try when that may help.

use super::auth::Auth;
use super::reference::Reference;
use super::url::{Origin, join, shown};
use crate::error::{Error, Kind, Result};
use crate::image::archive::inside;
use crate::image::progress::Task;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{HeaderValue, Method, Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, SendBody};

/// How the registry is reached.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Wire {
    /// Speak to the registry without TLS, as is done with one on this machine
    #[arg(long)]
    pub plain_http: bool,
    /// Take any certificate of the registry
    #[arg(long)]
    pub insecure: bool,
}

/// Longest chain of redirects.
const MAX_REDIRECTS: usize = 10;
/// Tries of one request, and the longest time between two.
const TRIES: u32 = 5;
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Silence after which a connection is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// Largest head of an answer, and how much of a message about an error is read, in bytes.
const MAX_HEAD: usize = 64 << 10;
const MAX_MESSAGE: u64 = 16 << 10;

/// A request, but for the rights.
pub struct Call<'a> {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub payload: Payload<'a>,
    /// 1 where only the caller knows how to go on.
    pub tries: u32,
}

pub enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// From here so many bytes of the file.
    Part(&'a File, u64, u64, &'a Task),
}

impl<'a> Call<'a> {
    pub fn new(method: Method, url: String) -> Self {
        Self { method, url, headers: vec![], payload: Payload::None, tries: TRIES }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn payload(mut self, payload: Payload<'a>) -> Self {
        self.payload = payload;
        self
    }

    pub fn once(self) -> Self {
        Self { tries: 1, ..self }
    }

    fn at(&self, url: &str) -> String {
        format!("{} {}", self.method, shown(url))
    }
}

/// What the server answered in the end, and where.
pub struct Answer {
    pub status: u16,
    pub url: String,
    at: String,
    response: Response<Body>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.response.headers().get_all(name).iter().filter_map(|v| v.to_str().ok())
    }

    /// An error, with the registry's words, unless the status is one of these.
    pub fn must(self, wanted: &[u16]) -> Result<Self> {
        if wanted.contains(&self.status) { Ok(self) } else { Err(self.refused()) }
    }

    pub fn refused(self) -> Error {
        let (status, wait) = (self.response.status(), self.retry_after());
        let reason = status.canonical_reason().unwrap_or("unknown").to_lowercase();
        let mut what = format!("{} {reason}", self.status);
        let at = self.at.clone();
        // Without them the status must do.
        let text = self.bytes(MAX_MESSAGE).unwrap_or_default();
        if let Ok(said) = serde_json::from_slice::<Messages>(&text) {
            said.errors.iter().take(3).for_each(|m| what.push_str(&m.shown()));
        }
        if let Some(wait) = wait.filter(|w| *w > MAX_WAIT) {
            what.push_str(&format!(", try again in {} s", wait.as_secs()));
        }
        match status.as_u16() {
            404 => Error::new(Kind::NotFound, at, what),
            401 | 403 => Error::invalid(at, what)
                .hint("is there a login for it in the configuration of docker or podman?"),
            _ => Error::invalid(at, what),
        }
    }

    /// All of the body, when it has at most `max` bytes.
    pub fn bytes(self, max: u64) -> Result<Vec<u8>> {
        let at = self.at;
        let too_large = || Error::invalid(&at, format!("answers with more than {max} bytes"));
        let mut body = self.response.into_body();
        if body.content_length().is_some_and(|n| n > max) {
            return Err(too_large());
        }
        let mut out = Vec::new();
        body.as_reader().take(max + 1).read_to_end(&mut out).map_err(|e| Error::io(&at, "read", &e))?;
        if out.len() as u64 > max { Err(too_large()) } else { Ok(out) }
    }

    /// Bytes of the body, where the server says so.
    pub fn length(&self) -> Option<u64> {
        self.response.body().content_length()
    }

    pub fn into_reader(self) -> Box<dyn Read + Send> {
        Box::new(self.response.into_body().into_reader())
    }

    /// Seconds: no registry is known that sends a date, as it might (RFC 9110, section 10.2.3).
    fn retry_after(&self) -> Option<Duration> {
        self.header("retry-after")?.trim().parse().ok().map(Duration::from_secs)
    }
}

/// What registries say of an error.
#[derive(Deserialize)]
struct Messages {
    errors: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Message {
    fn shown(&self) -> String {
        let short = |text: &str| text.chars().take(300).collect::<String>();
        format!(": {}: {}", short(&self.code), short(&self.message))
    }
}

/// A registry, seen from one repository of it.
pub struct Client {
    agent: Agent,
    base: String,
    origin: Origin,
    has_roots: bool,
    pub reference: Reference,
    auth: Auth,
}

impl Client {
    /// `actions` is what is to be done: `pull`, or `pull,push`.
    pub fn new(reference: &Reference, wire: &Wire, actions: &'static str) -> Result<Self> {
        // Whoever has laid down certificates for one on this machine wants them to be used.
        let has_certs = certs(&reference.registry).any(|dir| dir.is_dir());
        let plain = wire.plain_http || reference.is_local() && !has_certs;
        let base = format!("{}://{}", if plain { "http" } else { "https" }, reference.authority());
        let roots = roots(&reference.registry);
        let has_roots = !roots.is_empty();
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("orlop/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(MAX_HEAD)
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .tls_config(tls(roots, wire.insecure));
        if reference.is_local() {
            config = config.proxy(None); // nobody else's loopback is meant
        }
        let agent = Agent::with_parts(config.build(), DefaultConnector::new(), super::resolve::System);
        let auth = Auth::new(reference, actions);
        Ok(Self { agent, origin: Origin::of(&base)?, base, has_roots, reference: reference.clone(), auth })
    }

    /// The URL of a part of the repository.
    pub fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base, self.reference.repository)
    }

    /// Asks for the right to pull from another repository too: for mounts.
    pub fn also_pull(&self, repository: &str) {
        self.auth.also_pull(repository);
    }

    /// No longer asks for what [`Client::also_pull`] asked for.
    pub fn only_own(&self) {
        self.auth.only_own();
    }

    /// Sends, with rights where they are asked for, again after failures that may pass, and on to where it is sent.
    /// Any other status is an answer.
    pub fn call(&self, call: &Call) -> Result<Answer> {
        let mut url = call.url.clone();
        let reads = matches!(call.method, Method::GET | Method::HEAD);
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.authorized(call, &url)?;
            let Some(location) =
                answer.header("location").filter(|_| reads && (301..=308).contains(&answer.status))
            else {
                return Ok(answer);
            };
            url = join(&url, location).map_err(|e| inside(&answer.at, e))?;
        }
        Err(Error::invalid(call.at(&call.url), format!("is redirected more than {MAX_REDIRECTS} times")))
    }

    /// Rights are for the registry alone, not for those that it sends us to.
    fn authorized(&self, call: &Call, url: &str) -> Result<Answer> {
        if Origin::of(url)? != self.origin {
            return self.settled(call, url, None);
        }
        let sent = self.auth.current();
        let answer = self.settled(call, url, sent.as_deref())?;
        if answer.status != 401 {
            return Ok(answer);
        }
        match self.auth.renew(self, &answer, sent)? {
            Some(rights) => self.settled(call, url, Some(&rights)),
            None => Ok(answer),
        }
    }

    /// Tries until the answer is one.
    pub fn settled(&self, call: &Call, url: &str, rights: Option<&str>) -> Result<Answer> {
        let mut n = 0;
        loop {
            n += 1;
            let wait = match self.send(call, url, rights) {
                Ok(response) => {
                    let status = response.status().as_u16();
                    let answer = Answer { status, url: url.into(), at: call.at(url), response };
                    let wait = answer.retry_after().unwrap_or(wait_for(n));
                    if n == call.tries || !may_pass(status) || wait > MAX_WAIT {
                        return Ok(answer);
                    }
                    wait
                }
                Err(e) if n < call.tries && is_broken(&e) => wait_for(n),
                Err(e) => return Err(self.transport(&call.at(url), e)),
            };
            tracing::info!("{}: trying again in {} ms", call.at(url), wait.as_millis());
            std::thread::sleep(wait);
        }
    }

    fn send(&self, call: &Call, url: &str, rights: Option<&str>) -> Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder().method(call.method.clone()).uri(url);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(rights) = rights {
            let mut value = HeaderValue::from_str(rights).map_err(|e| ureq::Error::Http(e.into()))?;
            value.set_sensitive(true);
            request = request.header("authorization", value);
        }
        match call.payload {
            Payload::None => self.agent.run(request.body(())?),
            Payload::Bytes(bytes) => self.agent.run(request.body(bytes)?),
            Payload::Part(file, at, len, task) => {
                let mut part = Part { file, at, end: at + len, task };
                let request = request.header("content-length", len);
                self.agent.run(request.body(SendBody::from_reader(&mut part))?)
            }
        }
    }

    fn transport(&self, at: &str, e: ureq::Error) -> Error {
        let e = match e {
            ureq::Error::Io(e) => Error::io(at, "connect or transfer", &e),
            ureq::Error::HostNotFound => Error::new(Kind::NotFound, at, "the host does not exist"),
            ureq::Error::Timeout(_) => Error::os(at, "wait for the server", libc::ETIMEDOUT),
            other => Error::invalid(at, other.to_string()),
        };
        match self.has_roots || !e.what.contains("UnknownIssuer") {
            true => e,
            false => e.hint("no root certificates here: install ca-certificates or set SSL_CERT_FILE"),
        }
    }
}

/// A part of a file on its way, told to its task.
struct Part<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    task: &'a Task,
}

impl Read for Part<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.len());
        let n = self.file.read_at(&mut buf[..left], self.at)?;
        self.at += n as u64;
        self.task.reached(self.at);
        Ok(n)
    }
}

/// How long to wait after the `n`th failure.
pub fn wait_for(n: u32) -> Duration {
    Duration::from_millis(125 << n.min(6))
}

/// Whether the status is that of a server that may do better soon.
pub fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Whether the connection broke, which says nothing of the next one.
fn is_broken(e: &ureq::Error) -> bool {
    use io::ErrorKind as K;
    match e {
        ureq::Error::Io(e) => matches!(
            e.kind(),
            K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof | K::TimedOut
        ),
        ureq::Error::Timeout(_) => true,
        _ => false,
    }
}

/// Where podman and docker keep what belongs to this registry.
fn certs(registry: &str) -> impl Iterator<Item = PathBuf> {
    ["/etc/containers/certs.d", "/etc/docker/certs.d"]
        .into_iter()
        .map(move |dir| Path::new(dir).join(registry))
}

/// The system's authorities, and those that podman and docker keep for this registry.
fn roots(registry: &str) -> Vec<Certificate<'static>> {
    let own = certs(registry).flat_map(|dir| authorities(&dir));
    let all = rustls_native_certs::load_native_certs().certs.into_iter().chain(own);
    all.map(|c| Certificate::from_der(&c).to_owned()).collect()
}

fn tls(roots: Vec<Certificate<'static>>, insecure: bool) -> TlsConfig {
    TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .disable_verification(insecure)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}

/// The `*.crt` of a directory, which is usually not there.
fn authorities(dir: &Path) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    files
        .filter(|p| p.extension().is_some_and(|e| e == "crt"))
        .filter_map(|p| rustls::pki_types::CertificateDer::pem_file_iter(p).ok())
        .flat_map(|certs| certs.flatten().collect::<Vec<_>>())
        .collect()
}
