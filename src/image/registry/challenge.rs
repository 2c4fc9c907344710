//! What a registry answers to a request without rights: `WWW-Authenticate` (RFC 9110, section 11.6.1).

use std::collections::HashMap;

/// One scheme with its parameters, names in lower case.
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge {
    pub scheme: String,
    pub params: HashMap<String, String>,
}

/// Longest header that is looked at, and most challenges and parameters that are kept of it.
const MAX_BYTES: usize = 8192;
const MAX_PARTS: usize = 64;

/// The challenges of one header; what cannot be read ends it.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut out: Vec<Challenge> = Vec::new();
    let mut rest = header.get(..header.len().min(MAX_BYTES)).unwrap_or_default();
    for _ in 0..MAX_PARTS {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let behind = after.trim_start();
        // `key=value` belongs to the scheme before it; `token68==` of a scheme that we do not know ends in `=`.
        match behind.strip_prefix('=') {
            Some(value) => {
                let Some((value, after)) = value_of(value.trim_start()) else { break };
                let Some(last) = out.last_mut() else { break };
                last.params.insert(word.to_ascii_lowercase(), value);
                rest = after;
            }
            None => {
                out.push(Challenge { scheme: word.to_ascii_lowercase(), params: HashMap::new() });
                rest = after;
            }
        }
    }
    out
}

fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = token(text);
        return (!word.is_empty()).then(|| (word.to_string(), rest));
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((n, c)) = chars.next() {
        match c {
            '"' => return Some((out, &quoted[n + 1..])),
            '\\' => out.push(chars.next()?.1),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let shown = |header: &str| {
            let one = |c: &Challenge| {
                let mut params: Vec<String> = c.params.iter().map(|(k, v)| format!("{k}={v}")).collect();
                params.sort();
                format!("{}({})", c.scheme, params.join(";"))
            };
            parse(header).iter().map(one).collect::<Vec<_>>().join(" ")
        };
        for (header, want) in [
            (
                r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull,push""#,
                "bearer(realm=https://a/t;scope=repository:x:pull,push;service=s)",
            ),
            (r#"Basic realm="a \"b\" c""#, r#"basic(realm=a "b" c)"#),
            (r#"bearer Realm = x , Service=y, BASIC realm=z"#, "bearer(realm=x;service=y) basic(realm=z)"),
            ("Negotiate, Basic realm=\"z\"", "negotiate() basic(realm=z)"),
            (r#"Bearer realm="open"#, "bearer()"),
            ("realm=x", ""),
            ("", ""),
            ("\u{e9}", ""),
        ] {
            assert_eq!(shown(header), want, "{header}");
        }
        assert!(parse(&"a,".repeat(100_000)).len() <= MAX_PARTS);
    }
}
