//! What describes the command line: help, completions, manual pages.

use crate::needs_program;
use crate::support::{self, ORLOP, Scratch, finish, has_program};
use clap::{ArgAction, Command};
use std::fs;
use std::path::Path;
use std::process::Command as Process;

fn whole() -> Command {
    let mut c = orlop::cli::whole(orlop::image::cli::command());
    c.build();
    c
}

/// Every command with the words that lead to it.
pub fn commands() -> Vec<(Vec<String>, Command)> {
    let mut out = vec![(vec![], whole())];
    let mut at = 0;
    while at < out.len() {
        let (words, c) = &out[at];
        let below = c.get_subcommands().filter(|s| s.get_name() != "help");
        let more: Vec<_> =
            below.map(|s| ([&words[..], &[s.get_name().to_string()]].concat(), s.clone())).collect();
        out.extend(more);
        at += 1;
    }
    out
}

/// The help of a command of imgtool, below its options.
pub fn after_help(command: &str) -> String {
    let all = commands();
    let found = all.iter().find(|c| c.0 == ["imgtool", command]).unwrap_or_else(|| panic!("{command}"));
    found.1.get_after_help().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn every_command_and_option_has_help() {
    let all = commands();
    assert!(all.len() > 40 && all.iter().any(|c| c.0 == ["imgtool", "squash"]), "{}", all.len());
    for (words, c) in all {
        let at = format!("orlop {}", words.join(" "));
        assert!(c.get_about().is_some_and(|a| a.to_string().len() > 5), "{at} has no line of help");
        for arg in c.get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str())) {
            let at = format!("{at}: {}", arg.get_id());
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.len() > 5, "{at} has no help");
            if words.first().is_none_or(|w| w != "imgtool") {
                continue; // some of these are another crate's
            }
            for value in arg.get_possible_values().iter().filter(|_| arg.get_action().takes_values()) {
                assert!(value.get_help().is_some(), "{at}: {} has no help", value.get_name());
            }
            // `config` leaves what is not given as it is, which is what its name says.
            let may_be_left = matches!(arg.get_action(), ArgAction::Set) && !arg.is_required_set();
            let has_default = !arg.get_default_values().is_empty() || help.contains("(default: ");
            assert!(!may_be_left || has_default || words[1..] == ["config"], "{at} tells no default: {help}");
            let name = arg.get_value_names().and_then(|n| n.first()).map(ToString::to_string);
            assert!(name.as_deref() != Some("BYTES") || help.contains("bytes"), "{at} tells no unit: {help}");
        }
    }
}

#[test]
fn bash_completes_commands_and_options() {
    needs_program!("bash");
    let s = Scratch::new("completions");
    let script = finish(Process::new(ORLOP).args(["completions", "bash"])).ok().stdout;
    fs::write(s.path.join("orlop"), script).unwrap();
    let completes = |words: &str| {
        let text = format!(
            "source {}/orlop; complete -p orlop >&2; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             f=$(complete -p orlop | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
             $f orlop \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\"",
            s.path.display()
        );
        let out = finish(Process::new("bash").args(["--norc", "-c", &text])).ok();
        assert!(out.stderr.contains("-F _orlop "), "{}", out.stderr);
        out.stdout.trim().to_string()
    };
    assert_eq!(completes("orlop imgt"), "imgtool");
    assert_eq!(completes("orlop imgtool squ"), "squash");
    assert_eq!(completes("orlop imgtool squash --fr"), "--from");
    assert_eq!(completes("orlop imgtool list --format js"), "json");
    assert_eq!(completes("orlop run --pid-f"), "--pid-file");
}

#[test]
fn other_shells_have_their_scripts() {
    let s = Scratch::new("completions");
    for (shell, head, check) in
        [("zsh", "#compdef orlop", "-n"), ("fish", "function __fish_orlop", "--no-execute")]
    {
        let script = finish(Process::new(ORLOP).args(["completions", shell])).ok().stdout;
        assert!(script.contains(head) && script.contains("squash"), "{shell}");
        let path = s.path.join(shell);
        fs::write(&path, script).unwrap();
        if has_program(shell) {
            let out = finish(Process::new(shell).arg(check).arg(&path)).ok();
            assert_eq!(out.stderr, "", "{shell}");
        } else {
            support::skip(&format!("needs {shell}"));
        }
    }
    finish(Process::new(ORLOP).args(["completions", "cmd"]))
        .fails("orlop: completions: ")
        .fails("bash, fish, zsh");
}

/// Every command has a page that groff takes without a word.
#[test]
fn every_command_has_a_manual_page() {
    let s = Scratch::new("man");
    let dir = s.path.join("new/man1");
    finish(Process::new(ORLOP).arg("man").arg(&dir)).ok();
    let page = |words: &[String]| [&["orlop".to_string()], words].concat().join("-") + ".1";
    let mut want: Vec<String> =
        commands().iter().filter(|c| !c.1.is_hide_set()).map(|c| page(&c.0)).collect();
    want.sort();
    let names = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names, want);
    let text = fs::read_to_string(dir.join("orlop-imgtool-import.1")).unwrap();
    assert!(text.contains("max\\-layer\\-bytes") && text.contains("\\-\\-store"), "{text}");
    let file = s.path.join("file");
    fs::write(&file, "").unwrap();
    finish(Process::new(ORLOP).arg("man").arg(file.join("x"))).fails("/file/x: make: not a directory");
    needs_program!("groff");
    for name in names {
        // Words of an option are never broken, so that some lines of a synopsis cannot be filled.
        let out = finish(
            Process::new("groff").args(["-man", "-ww", "-W", "break", "-Tutf8", "-z"]).arg(dir.join(&name)),
        );
        assert_eq!(out.ok().stderr, "", "{name}");
    }
    needs_program!("man");
    let shown = finish(Process::new("man").arg("-l").arg(dir.join("orlop-imgtool.1")).env("MANPAGER", "cat"));
    assert!(shown.ok().stdout.contains("SOURCE_DATE_EPOCH"));
}

/// Whoever asks for the help of a container's verb pays nothing for imgtool.
#[test]
fn help_tells_of_all() {
    let help = |args: &[&str]| finish(Process::new(ORLOP).args(args)).ok().stdout;
    let all = help(&["--help"]);
    for word in ["completions", "man", "imgtool", "create"] {
        assert!(all.contains(word), "{all}");
    }
    assert!(help(&["imgtool", "--help"]).contains("--progress json"));
    assert!(help(&["imgtool", "list", "-h"]).contains("JSON: [{name, "));
    let width = |text: &str| text.lines().filter(|l| !l.contains("  ")).map(|l| l.chars().count()).max();
    assert!(width(&help(&["imgtool", "--help"])) <= Some(100));
    assert!(Path::new(ORLOP).exists());
}
