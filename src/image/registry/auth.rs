//! Rights at a registry: a login sent as it is, or a token for it (distribution's token authentication).

use super::challenge::{self, Challenge};
use super::client::{Answer, Call, Client, Payload};
use super::credentials::{self, Login};
use super::reference::Reference;
use super::url::{encode, join, with_query};
use crate::error::{Error, Result};
use crate::image::archive::inside;
use crate::image::import::locked;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::sync::{Mutex, MutexGuard};
use ureq::http::Method;

/// What is known of our rights.
pub struct Auth {
    reference: Reference,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The header that was last accepted, or is hoped to be.
    rights: Option<String>,
    scopes: Vec<String>,
    /// `None` until it was looked for.
    login: Option<Option<Login>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// Largest answer of a token server in bytes.
const MAX_TOKEN: u64 = 256 << 10;

impl Auth {
    pub fn new(reference: &Reference, actions: &str) -> Self {
        let scopes = vec![format!("repository:{}:{actions}", reference.repository)];
        Self { reference: reference.clone(), state: Mutex::new(State { scopes, ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    pub fn current(&self) -> Option<String> {
        self.state().rights.clone()
    }

    pub fn also_pull(&self, repository: &str) {
        let scope = format!("repository:{repository}:pull");
        let mut state = self.state();
        if !state.scopes.contains(&scope) {
            state.scopes.push(scope);
            state.rights = None; // a token is for the scopes that it was asked with
        }
    }

    /// Asks for no other repositories from now on.
    pub fn only_own(&self) {
        self.state().scopes.truncate(1);
    }

    /// New rights after `refused`, which was sent with `sent`; `None` where there are none to be had.
    pub fn renew(&self, client: &Client, refused: &Answer, sent: Option<String>) -> Result<Option<String>> {
        let mut state = self.state();
        if state.rights.is_some() && state.rights != sent {
            return Ok(state.rights.clone()); // another thread has asked meanwhile
        }
        let offered: Vec<Challenge> =
            refused.headers("www-authenticate").flat_map(challenge::parse).collect();
        let scheme = |name: &str| offered.iter().find(|c| c.scheme == name);
        if scheme("bearer").or(scheme("basic")).is_none() {
            return Ok(None);
        }
        let login = match state.login.take() {
            Some(known) => known,
            None => credentials::find(&self.reference)?,
        };
        state.login = Some(login.clone());
        state.rights = match (scheme("bearer"), scheme("basic"), &login) {
            (Some(_), _, Some(Login::Bearer(token))) => Some(format!("Bearer {token}")),
            (Some(bearer), ..) => Some(token(client, &refused.url, bearer, &state.scopes, login.as_ref())?),
            (None, Some(_), Some(Login::Password(user, password))) => Some(basic(user, password)),
            _ => None,
        };
        // The same again would be refused again.
        Ok(state.rights.clone().filter(|r| Some(r) != sent.as_ref()))
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Asks the token server that the registry at `base` names.
fn token(
    client: &Client,
    base: &str,
    bearer: &Challenge,
    ours: &[String],
    login: Option<&Login>,
) -> Result<String> {
    let at = "the registry's challenge";
    let realm = bearer.params.get("realm").ok_or_else(|| Error::invalid(at, "names no realm"))?;
    // From https to http the login would go in the clear, on the word of whoever wrote the header: `join` refuses.
    let realm = join(base, realm).map_err(|e| inside(at, e))?;
    // What the registry asks for, and what we are going to do: a mirror may know the repository by another name.
    let theirs = bearer.params.get("scope").into_iter().flat_map(|s| s.split(' ')).filter(|s| !s.is_empty());
    let mut scopes: Vec<&str> = ours.iter().map(String::as_str).collect();
    for scope in theirs.take(16) {
        let covered = |s: &&str| s.strip_prefix(scope).is_some_and(|r| r.is_empty() || r.starts_with(','));
        if !scopes.iter().any(covered) {
            scopes.push(scope);
        }
    }
    let service = bearer.params.get("service");
    let form;
    let mut rights = None;
    let call = if let Some(Login::Refresh(refresh)) = login {
        let service = service.map(String::as_str).unwrap_or_default();
        form = format!(
            "grant_type=refresh_token&client_id=orlop&service={}&scope={}&refresh_token={}",
            encode(service),
            encode(&scopes.join(" ")),
            encode(refresh)
        );
        Call::new(Method::POST, realm)
            .header("content-type", "application/x-www-form-urlencoded")
            .payload(Payload::Bytes(form.as_bytes()))
    } else {
        let mut url = realm;
        if let Some(service) = service {
            url = with_query(&url, "service", service);
        }
        for scope in scopes {
            url = with_query(&url, "scope", scope);
        }
        if let Some(Login::Password(user, password)) = login {
            url = with_query(&url, "account", user);
            rights = Some(basic(user, password));
        }
        Call::new(Method::GET, url)
    };
    let answer = client.settled(&call, &call.url, rights.as_deref())?.must(&[200])?;
    let url = answer.url.clone();
    let at = || format!("token server {}", super::url::shown(&url));
    let parsed: Token = serde_json::from_slice(&answer.bytes(MAX_TOKEN)?)
        .map_err(|_| Error::invalid(at(), "does not answer with a token"))?;
    let token = parsed.token.or(parsed.access_token).filter(|t| !t.is_empty());
    let token = token.ok_or_else(|| Error::invalid(at(), "answers without a token"))?;
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::invalid(at(), "answers with a token that is none"));
    }
    Ok(format!("Bearer {token}"))
}
