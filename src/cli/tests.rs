use super::*;

fn args(line: &str) -> Vec<OsString> {
    std::iter::once("orlop").chain(line.split_whitespace()).map(OsString::from).collect()
}

fn request(line: &str) -> Request {
    match parse(args(line).into_iter()) {
        Ok(r) => r,
        Err(e) => panic!("{line}: {e:?}"),
    }
}

/// The verb and the message of a refusal.
fn refused(line: &str) -> (String, String) {
    match parse(args(line).into_iter()) {
        Err(Stop::Usage { verb, error, .. }) => (verb, error.to_string()),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn definitions_are_consistent() {
    let mut c = globals();
    for v in VERBS {
        c = c.subcommand((v.args)(Command::new(v.name)));
    }
    c.debug_assert();
}

#[test]
fn help_says_what_the_verb_does() {
    for v in VERBS.iter().filter(|v| v.name != "imgtool") {
        match parse(args(&format!("{} --help", v.name)).into_iter()) {
            Err(Stop::Show(text)) => assert!(text.starts_with(&format!("{}\n", v.about)), "{text}"),
            other => panic!("{}: {other:?}", v.name),
        }
    }
}

#[test]
fn every_call_that_engines_make_is_read() {
    for (line, verb) in [
        (
            "--root /r --log /b/log.json --log-format json create --bundle /b --pid-file /b/p --console-socket /s c",
            "create",
        ),
        (
            "--root=/r --log=/b/l --log-format=json create --bundle=/b --pid-file=/b/p --preserve-fds=2 c",
            "create",
        ),
        (
            "--cgroup-manager=disabled create --no-pivot --no-new-keyring --no-subreaper --pidfd-socket /s c",
            "create",
        ),
        ("--systemd-cgroup --rootless true start c", "start"),
        ("--debug state c", "state"),
        ("kill c 9", "kill"),
        ("kill --all c SIGTERM", "kill"),
        ("kill c", "kill"),
        ("delete c", "delete"),
        ("delete --force c", "delete"),
        ("run --bundle /b --keep --no-subreaper -d -f other.json c", "run"),
        ("list -q -f json", "list"),
        ("list --format=table", "list"),
        ("spec -b /b --rootless -f x.json", "spec"),
        ("--criu /usr/sbin/criu features", "features"),
        ("exec --process /p --console-socket /s --detach --pid-file /b/e.pid c", "exec"),
        ("exec --pid-file /f --process /p --detach --tty --console-socket /s --preserve-fds 2 c", "exec"),
        (
            "exec -u 1:2 -g 3 -g 4 -e A=1 -e B --cwd / -c CAP_NET_RAW --cgroup cpu:/a --cgroup /b c ls -l --",
            "exec",
        ),
        ("ps --format json c", "ps"),
        ("ps c -e -o pid", "ps"),
        ("pause c", "pause"),
        ("resume c", "resume"),
        ("update --resources - c", "update"),
        ("update --resources=- c", "update"),
        ("update --memory 512M --memory-swap -1 --cpu-quota -1 --pids-limit=-1 c", "update"),
        ("events --stats c", "events"),
        ("events --interval 1s c", "events"),
        (
            "checkpoint --image-path /i --work-path /w --leave-running --manage-cgroups-mode ignore --network-lock skip c",
            "checkpoint",
        ),
        ("restore --bundle /b --image-path /i --detach --pid-file /p --empty-ns network c", "restore"),
        ("explain /b", "explain"),
        ("imgtool --store /s import -q --help x", "imgtool"),
    ] {
        assert_eq!(request(line).verb.name(), verb, "{line}");
    }
}

#[test]
fn values_arrive() {
    let r = request(
        "--root /r --log l --log-format json --debug --log-level warn --rootless false run -b /b -c /s -p p --preserve-fds 3 --pidfd-socket=/q -f g --no-pivot --no-new-keyring --no-subreaper --keep -d id",
    );
    let want = Global {
        root: Some("/r".into()),
        log: Some("l".into()),
        log_format: LogFormat::Json,
        debug: true,
        log_level: Some(LogLevel::Warning),
        cgroup_manager: CgroupManager::Cgroupfs,
        rootless: Some(false),
    };
    assert_eq!(r.global, want);
    let Verb::Run(Run { oci, more }) = r.verb else { panic!("run") };
    assert_eq!((oci.bundle, oci.container_id.as_str(), oci.preserve_fds), ("/b".into(), "id", 3));
    assert_eq!((oci.console_socket, oci.pid_file), (Some("/s".into()), Some("p".into())));
    assert!(oci.no_pivot && oci.no_new_keyring && oci.no_subreaper && oci.keep && oci.detach);
    assert_eq!((more.pidfd_socket, more.config), (Some("/q".into()), Some("g".into())));
}

#[test]
fn defaults_are_those_of_runc() {
    let r = request("kill c");
    assert_eq!(r.global, Global::default());
    assert!(matches!(r.verb, Verb::Kill(k) if k.signal == "TERM" && !k.all));
    assert!(matches!(request("list").verb, Verb::List(l) if l.format == "table" && !l.quiet));
    assert!(matches!(request("create c").verb, Verb::Create(c) if c.oci.bundle == Path::new(".")));
}

#[test]
fn what_follows_the_id_of_exec_is_the_programs() {
    let Verb::Exec(e) = request("exec -t c ls -t -- --user x").verb else { panic!("exec") };
    assert!(e.tty && e.user.is_none());
    assert_eq!(e.command, ["ls", "-t", "--", "--user", "x"].map(OsString::from));
}

#[test]
fn the_cgroup_manager_has_two_spellings() {
    for (line, manager) in [
        ("list", CgroupManager::Cgroupfs),
        ("--systemd-cgroup list", CgroupManager::Systemd),
        ("--cgroup-manager systemd list", CgroupManager::Systemd),
        ("--cgroup-manager cgroupfs list", CgroupManager::Cgroupfs),
        ("--cgroup-manager disabled list", CgroupManager::Disabled),
    ] {
        assert_eq!(request(line).global.cgroup_manager, manager, "{line}");
    }
}

#[test]
fn the_last_of_a_repeated_option_counts() {
    let r = request("--root /a --root /b list -f json -f table");
    assert_eq!(r.global.root, Some("/b".into()));
    assert!(matches!(r.verb, Verb::List(l) if l.format == "table"));
}

#[test]
fn wrong_usage_is_one_line_with_the_verb() {
    for (line, verb, part) in [
        ("", "", "requires a subcommand"),
        ("frob", "", "'frob'"),
        ("--bogus list", "", "'--bogus'"),
        ("list --bogus", "list", "'--bogus'"),
        ("--log-format xml list", "", "'xml'"),
        ("--rootless maybe list", "", "'maybe'"),
        ("--cgroup-manager x list", "", "'x'"),
        ("--log-level loud list", "", "'loud'"),
        ("list -f yaml", "list", "'yaml'"),
        ("start", "start", "<CONTAINER_ID>"),
        ("start a b", "start", "'b'"),
        ("state", "state", "<CONTAINER_ID>"),
        ("features x", "features", "'x'"),
        ("run --preserve-fds -1 c", "run", "-1"),
        ("run --preserve-fds x c", "run", "'x'"),
        ("delete --regex c", "delete", "'--regex'"),
        ("checkpoint --network-lock x c", "checkpoint", "'x'"),
        ("checkpoint --manage-cgroups-mode x c", "checkpoint", "'x'"),
        ("restore --empty-ns pid c", "restore", "'pid'"),
        ("--root / list", "", "--root"),
        ("--root /.././/. list", "", "--root"),
        ("list --root /r", "list", "'--root'"),
        ("restore --lsm-mount-context", "restore", "flag needs an argument: --lsm-mount-context"),
    ] {
        let (v, message) = refused(line);
        assert_eq!(v, verb, "{line}: {message}");
        assert!(message.contains(part), "{line}: {message}");
        assert!(!message.contains("\\n") && !message.contains('\n'), "{line}: {message}");
    }
}

#[test]
fn an_empty_path_is_as_good_as_none() {
    // `''` is an empty word.
    let words = |line: &str| args(line).into_iter().map(|a| if a == "''" { OsString::new() } else { a });
    let line = "--log '' create --bundle '' --pid-file '' --console-socket= --pidfd-socket '' c";
    let Ok(Request { verb: Verb::Create(create), global }) = parse(words(line)) else { panic!("{line}") };
    assert_eq!((global.log, create.oci.bundle.as_path()), (None, Path::new(".")));
    assert_eq!(
        (create.oci.pid_file, create.oci.console_socket, create.more.pidfd_socket),
        (None, None, None)
    );
    let line = "exec -p '' --cwd '' --pid-file f c echo --cwd ''";
    let Ok(Request { verb: Verb::Exec(exec), .. }) = parse(words(line)) else { panic!("{line}") };
    assert_eq!((exec.process, exec.cwd, exec.pid_file), (None, None, Some("f".into())));
    assert_eq!(exec.command, ["echo", "--cwd", ""]);
    for (line, part) in [
        ("--root '' list", "flag needs an argument: --root"),
        ("create --pid-file", "flag needs an argument: --pid-file"),
        ("create --pid-file '' ''", "flag needs an argument: <CONTAINER_ID>"),
    ] {
        let Err(Stop::Usage { error, .. }) = parse(words(line)) else { panic!("{line}") };
        assert!(error.to_string().contains(part), "{line}: {error}");
    }
}

#[test]
fn a_refused_verb_still_has_its_log() {
    let line = "--log /l --log-format json run --bogus c";
    match parse(args(line).into_iter()) {
        Err(Stop::Usage { global, .. }) => {
            assert_eq!((global.log, global.log_format), (Some("/l".into()), LogFormat::Json));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn version_and_help_are_shown() {
    for line in ["--version", "-v", "--debug --version"] {
        let Err(Stop::Show(text)) = parse(args(line).into_iter()) else { panic!("{line}") };
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], concat!("orlop version ", env!("CARGO_PKG_VERSION")), "{line}");
        assert!(lines[1].starts_with("commit: "), "{text}");
        assert_eq!(lines[2..], ["spec: 1.3.0"], "{text}");
    }
    for (line, part) in
        [("--help", "imgtool"), ("-h", "--root"), ("run --help", "--pidfd-socket"), ("help kill", "[SIGNAL]")]
    {
        let Err(Stop::Show(text)) = parse(args(line).into_iter()) else { panic!("{line}") };
        assert!(text.contains(part), "{line}: {text}");
    }
}

#[test]
fn imgtool_gets_its_arguments_untouched() {
    let Verb::Imgtool(rest) = request("imgtool -x --help import -- a").verb else { panic!() };
    assert_eq!(rest, ["-x", "--help", "import", "--", "a"].map(OsString::from));
}

#[test]
fn default_root_never_trusts_a_bad_runtime_directory() {
    let there = |dirs: &'static [&'static str]| move |p: &Path| dirs.iter().any(|d| p == Path::new(d));
    for (euid, xdg, dirs, want) in [
        (0, Some("/x"), &["/run", "/x"] as &[_], "/run/orlop"),
        (0, Some("/x"), &["/x"], "/x/orlop"),
        (0, Some("/x"), &[], "/run/orlop"),
        (0, None, &[], "/run/orlop"),
        (7, Some("/x"), &["/x", "/run/user/7"], "/x/orlop"),
        (7, Some(""), &["/run/user/7"], "/run/user/7/orlop"),
        (7, Some("x"), &["x", "/run/user/7"], "/run/user/7/orlop"),
        (7, Some("/x"), &["/run/user/7"], "/run/user/7/orlop"),
        (7, None, &["/run/user/7"], "/run/user/7/orlop"),
        (7, Some("/x"), &[], "/tmp/orlop-7"),
        (7, None, &[], "/tmp/orlop-7"),
    ] {
        let got = default_root(euid, xdg.map(OsString::from), there(dirs));
        assert_eq!(got, Path::new(want), "{euid} {xdg:?} {dirs:?}");
    }
}
