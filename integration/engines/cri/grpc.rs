//! A client of containerd's CRI: gRPC over its unix socket, with curl for HTTP/2.

use super::proto::Schema;
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::parse(include_str!("api.proto")));

pub struct Client {
    pub socket: PathBuf,
}

impl Client {
    /// Of the runtime service; an error is gRPC's own words.
    pub fn call(&self, method: &str, request: Value) -> Result<Value, String> {
        let message = SCHEMA.encode(&format!("{method}Request"), &request);
        // One byte that says "not compressed", four of length.
        let mut body = vec![0];
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
        let mut curl = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--http2-prior-knowledge",
                "--max-time",
                "30",
                "--data-binary",
                "@-",
            ])
            .args([
                "--header",
                "content-type: application/grpc",
                "--header",
                "te: trailers",
                "--dump-header",
                "/dev/stderr",
            ])
            .arg("--unix-socket")
            .arg(&self.socket)
            .arg(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("curl starts");
        curl.stdin.take().expect("stdin is a pipe").write_all(&body).expect("curl takes the request");
        let answer = curl.wait_with_output().expect("curl ends");
        let headers = String::from_utf8_lossy(&answer.stderr);
        let header = |name| headers.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
        match header("grpc-status:") {
            Some("0") => {
                Ok(SCHEMA.decode(&format!("{method}Response"), answer.stdout.get(5..).unwrap_or_default()))
            }
            Some(status) => Err(format!("{status}: {}", header("grpc-message:").unwrap_or_default())),
            None => Err(format!("no gRPC answer: {headers}")),
        }
    }
}
