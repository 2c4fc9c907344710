//! How far commands are: bars, lines, JSON, nothing.

use crate::make::{Image, Packing, Place, base, file, layer};
use crate::support::{self, Outcome, Scratch, finish_within};
use crate::{image, make, needs_program, needs_root, place, shell};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

fn events(out: &Outcome) -> Vec<Value> {
    out.stderr.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

/// What was done, and how it ended.
fn done(events: &[Value]) -> BTreeSet<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap().to_string();
    events.iter().filter(|e| e["event"] == "done").map(|e| (text(&e["what"]), text(&e["result"]))).collect()
}

#[test]
fn every_command_that_moves_much_tells_how_far_it_is() {
    needs_root!();
    let (p, digest) = place("x");
    let bundle = p.unpack("x", &["--no-mount"]);
    std::fs::write(bundle.join("upper/new"), "1").unwrap();
    let b = bundle.to_str().unwrap();
    let at = |name: &str| p.path().join(name).to_str().unwrap().to_string();
    let (layout, tar, docker, rootfs) = (at("layout"), at("x.tar"), at("d.tar"), at("r.tar"));
    let source = image().write();
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let documented = orlop::image::help::MORE;
    for (args, want) in [
        (&["import", source.path(), "x"][..], &[("layer", "exists")][..]),
        (&["export", "x", &layout], &[("blob", "exported")]),
        (&["export", "x", &layout], &[("blob", "exists")]),
        (&["export", "x", &tar], &[("blob", "exported")]),
        (&["export", "x", &docker, "--format", "docker"], &[("layer", "exported")]),
        (&["export", b, &rootfs, "--rootfs"], &[("rootfs", "exported")]),
        (&["verify"], &[("layer", "verified")]),
        (&["fsck"], &[("layer", "verified")]),
        (&["squash", "x", "s"], &[("squash", "made"), ("layer", "imported")]),
        (&["commit", b, "c"], &[("commit", "made"), ("layer", "imported")]),
        (&["append", "x", b, "a"], &[("append", "made"), ("layer", "imported")]),
        (&["history", "x"], &[]),
    ] {
        let all = events(&p.imgtool(&[&["--progress", "json"], args].concat()).ok());
        let want: BTreeSet<_> = want.iter().map(|(what, how)| (what.to_string(), how.to_string())).collect();
        assert_eq!(done(&all), want, "{args:?}");
        for e in &all {
            let mut named = BTreeSet::from(["event", "what", "digest", "bytes", "total"].map(String::from));
            if e["event"] == "done" {
                named.extend(["result", "seconds"].map(String::from));
                assert!(e["total"] == e["bytes"] || e["result"] == "exists", "{args:?}: {e}");
            }
            if e["event"] == "progress" {
                named.extend(["bytesPerSecond", "secondsLeft"].map(String::from));
            }
            assert_eq!(keys(e), named, "{args:?}");
            assert!(named.iter().all(|k| documented.contains(k)), "{named:?}");
            assert!(e["bytes"].is_u64() && (e["total"].is_u64() || e["total"].is_null()), "{e}");
            assert!(documented.contains(e["what"].as_str().unwrap()), "{e}");
            assert!(e["result"].as_str().is_none_or(|r| documented.contains(r)), "{e}");
        }
        let plain = p.imgtool(args).ok();
        assert_eq!(plain.stderr.is_empty(), want.is_empty(), "{args:?}: {}", plain.stderr);
        assert!(!plain.stderr.contains(['\r', '\u{1b}']), "bars are for terminals");
        for silent in [&["-q"][..], &["--progress", "none"], &["-q", "--progress", "json"]] {
            assert_eq!(p.imgtool(&[silent, args].concat()).ok().stderr, "", "{args:?}");
        }
    }
    let all = events(&p.imgtool(&["--progress", "json", "squash", "x", "s"]).ok());
    assert_eq!(all[0]["digest"], digest, "of the image that is squashed");
    p.remove(&bundle);
}

#[test]
fn what_takes_long_is_told_while_it_does() {
    needs_root!();
    let p = Place::new();
    let data = "0123456789abcdef".repeat(1 << 16);
    let source = Image::new(vec![layer(&base()), layer(&[file("big", &data)])]).write();
    p.imgtool(&["import", source.path(), "x"]).ok();
    // Who takes it is slow: a quarter of a second for each 100 KiB.
    let slow = "set -o pipefail; \"$@\" | while [ \"$(head -c 100000 | wc -c)\" -gt 0 ]; do sleep .15; done";
    let all = events(&shell(&p, slow, &["--progress", "json", "export", "x", "-"]).ok());
    let steps: Vec<&Value> = all.iter().filter(|e| e["event"] == "progress").collect();
    assert!(!steps.is_empty(), "{all:?}");
    for e in steps {
        assert!(e["bytesPerSecond"].is_u64() && e["secondsLeft"].is_u64(), "{e}");
        assert!(e["bytes"].as_u64() <= e["total"].as_u64(), "{e}");
    }
    let bundle = p.unpack("x", &["--no-mount"]);
    let all = events(
        &shell(&p, slow, &["--progress", "json", "export", "--rootfs", bundle.to_str().unwrap(), "-"]).ok(),
    );
    let step = all.iter().find(|e| e["event"] == "progress").unwrap_or_else(|| panic!("{all:?}"));
    assert_eq!(
        (&step["total"], &step["secondsLeft"], &step["digest"]),
        (&json!(null), &json!(null), &json!(null))
    );
    p.remove(&bundle);
}

/// Columns of the terminals here: no message is longer.
const WIDTH: usize = 250;

/// What a terminal shows in the end of what was written to it.
fn screen(text: &str) -> Vec<String> {
    screen_of(text, WIDTH)
}

fn screen_of(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<Vec<char>> = vec![vec![]];
    let (mut row, mut column) = (0, 0);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                column = 0;
            }
            '\u{1b}' => {
                assert_eq!(rest.next(), Some('['));
                let mut number = String::new();
                while let Some(d) = rest.next_if(|c| c.is_ascii_digit() || matches!(c, '?' | ';')) {
                    number.push(d);
                }
                let n = number.parse::<usize>().unwrap_or(1);
                match rest.next().unwrap() {
                    'A' => row -= n.min(row),
                    'B' => row += n,
                    'C' => column += n,
                    'D' => column -= n.min(column),
                    'K' if number == "2" => lines[row].clear(),
                    'K' => lines[row].truncate(column),
                    'J' => {
                        lines.truncate(row + 1);
                        lines[row].truncate(column);
                    }
                    'm' | 'h' | 'l' => {}
                    other => panic!("{other:?} in {text:?}"),
                }
            }
            c => {
                if column == width {
                    (row, column) = (row + 1, 0);
                }
                lines.resize(lines.len().max(row + 1), vec![]);
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
        while lines.len() <= row {
            lines.push(vec![]);
        }
    }
    let text = lines.into_iter().map(|l| l.into_iter().collect::<String>().trim_end().to_string());
    text.filter(|l| !l.is_empty()).collect()
}

/// The command line on a terminal of its own.
fn on_a_terminal(line: &str, columns: usize) -> Command {
    let mut c = Command::new("script");
    c.args(["-qec", &format!("stty rows 50 cols {columns}; exec {line}"), "/dev/null"]);
    c.env("TERM", "xterm").env("SHELL", "/bin/sh").stdin(Stdio::null());
    c
}

/// What imgtool writes to its terminal.
fn on_terminal(p: &Place, args: &[&str]) -> Outcome {
    let words: Vec<String> = args.iter().map(|a| format!("'{a}'")).collect();
    let line = format!("{} imgtool --store {} {}", support::ORLOP, p.store().display(), words.join(" "));
    finish_within(&mut on_a_terminal(&line, WIDTH), Duration::from_secs(60))
}

#[test]
fn a_terminal_has_bars() {
    needs_root!();
    needs_program!("script");
    let p = Place::new();
    let source = image().write();
    let out = on_terminal(&p, &["import", source.path(), "x"]).ok();
    assert!(out.stdout.contains("iB/s"), "a rate: {:?}", out.stdout);
    let shown = screen(&out.stdout);
    let bars: Vec<&String> = shown.iter().filter(|l| l.starts_with("layer ")).collect();
    assert_eq!(bars.len(), 2, "{shown:?}");
    assert!(
        bars.iter().all(|b| b.contains("[====") && b.contains("iB") && b.ends_with(" imported")),
        "{shown:?}"
    );
    assert!(shown.last().unwrap().starts_with("x sha256:"), "{shown:?}");
    let tar = p.path().join("x.tar").to_str().unwrap().to_string();
    for args in [&["verify"][..], &["squash", "x", "s"], &["export", "x", &tar]] {
        let shown = screen(&on_terminal(&p, args).ok().stdout);
        let ends = [" verified", " made", " imported", " exported"];
        assert!(shown.iter().any(|l| ends.iter().any(|e| l.ends_with(e))), "{args:?}: {shown:?}");
    }
    // No bar is wider than what is still a usual terminal.
    let line =
        format!("{} imgtool --store {}/other import {} x", support::ORLOP, p.path().display(), source.path());
    let narrow = finish_within(&mut on_a_terminal(&line, 80), Duration::from_secs(60)).ok().stdout;
    let narrow = screen_of(&narrow, 80);
    assert_eq!(
        narrow.iter().filter(|l| l.starts_with("layer ") && l.ends_with(" imported")).count(),
        2,
        "{narrow:?}"
    );
    for silent in [&["-q"][..], &["--progress", "none"]] {
        let shown = screen(&on_terminal(&p, &[silent, &["verify"]].concat()).ok().stdout);
        assert_eq!(shown, [""; 0]);
    }
    let plain = on_terminal(&p, &["--progress", "plain", "verify"]).ok().stdout;
    assert!(!plain.contains('\u{1b}') && plain.contains(": verified, "), "{plain:?}");
}

#[test]
fn of_bars_none_is_left_when_something_fails() {
    needs_root!();
    needs_program!("script");
    let p = Place::new();
    let source = Image::new(vec![layer(&base()), layer(&[file("a", "1")]), layer(&[file("b", "1")])]);
    let source = source.packing(Packing::Gzip).write();
    source.damage_layer(0, |d| {
        let middle = d.len() / 2;
        d[middle] ^= 0x55;
    });
    let out = on_terminal(&p, &["import", source.path(), "x"]);
    assert_eq!(out.code(), 1);
    let shown = screen(&out.stdout);
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(shown[0].starts_with("orlop: imgtool: ") && shown[0].contains(": layer sha256:"), "{shown:?}");
    let told = p.imgtool(&["--progress", "json", "import", source.path(), "x"]);
    assert!(told.stderr.contains("\"result\":\"failed\""), "{}", told.stderr);
}

#[test]
fn a_warning_stands_between_bars() {
    needs_root!();
    needs_program!("script");
    let s = Scratch::new("ordinary");
    let (home, orlop) = (s.path.join("home"), s.path.join("orlop"));
    std::fs::create_dir(&home).unwrap();
    chown(&home, Some(12345), Some(12345)).unwrap();
    support::copy_orlop(&orlop);
    let source = Image::new(vec![layer(&[make::device("dev/odd")]), layer(&[file("a", "1")])]).write();
    let line = format!("{} imgtool --store {}/s import {} x", orlop.display(), home.display(), source.path());
    let out = finish_within(
        on_a_terminal(&line, WIDTH).current_dir(&home).uid(12345).gid(12345),
        Duration::from_secs(60),
    )
    .ok();
    let shown = screen(&out.stdout);
    let starts = |text: &str| shown.iter().filter(|l| l.starts_with(text)).count();
    assert_eq!(
        (starts("time="), starts("layer "), starts("x sha256:"), shown.len()),
        (1, 2, 1, 4),
        "{shown:?}"
    );
}
