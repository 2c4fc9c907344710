//! stand-in
use crate::config;
use crate::error::Result;
use std::path::PathBuf;
use std::time::Duration;
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Hook {
    pub path: PathBuf,
    pub args: Vec<String>,
    pub env: Option<Vec<String>>,
    pub timeout: Option<Duration>,
}
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}
pub fn plan(_h: Option<&config::Hooks>) -> Result<Hooks> {
    Ok(Hooks::default())
}
