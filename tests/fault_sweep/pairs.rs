//! Two faults in one unit of work.

use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use super::run::{FAULTS, Stage, WAYS};

#[test]
fn two_faults_leave_the_database_as_the_answer_says() {
    let cases = if crate::long() { 5_000 } else { 200 };
    // Retries make further calls, where the second fault may lie.
    for verify in [false, true] {
        let stage = Stage::new(|builder| builder.verify_commits(verify));
        let n = stage.run(WAYS[0], &[]).len();
        let fault = || select(FAULTS.to_vec());
        let two = (select(WAYS.to_vec()), 1..=n, 1..=n + 5, fault(), fault());
        let config = Config { cases: cases / 2, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
        let run = TestRunner::new(config).run(&two, |(way, first, further, one, other)| {
            stage.run(way, &[(first, one), (first + further, other)]);
            Ok(())
        });
        run.map_err(|error| error.to_string()).unwrap();
    }
}
