//! The main job, end to end.

mod support;

use support::Bundle;

#[test]
fn run_gives_the_programs_output_and_status() {
    needs_root!();
    let b = Bundle::new().sh("echo $$; hostname; exit 7");
    let out = b.run();
    assert_eq!((out.code(), out.stdout.as_str()), (7, "1\norlop\n"), "{}", out.stderr);
    b.verb("state", &[]).fails("container does not exist");
}

#[test]
fn create_start_delete_one_by_one() {
    needs_root!();
    let b = Bundle::new().args(&["sleep", "100"]);
    b.create().ok();
    assert_eq!(b.state()["status"], "created");
    b.start().ok();
    assert_eq!(b.state()["status"], "running");
    b.verb("delete", &[]).fails("cannot delete container that is not stopped");
    b.verb("kill", &["KILL"]).ok();
    b.await_status("stopped");
    b.verb("delete", &[]).ok();
    b.verb("state", &[]).fails("container does not exist");
}
