//! Push to file in place: a real `git push` into the planner's repository until the agent's file holds the new text. The baseline
//! is the push alone, into a repository that no planner watches.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use groundplan_tests::{brokers::Kind, fleet::Fleet};

use crate::{
    generate::git,
    table::{Row, millis, quantile},
};

const ROUNDS: usize = 200;

/// A site with one file on one node.
const FILES: [(&str, &str); 3] = [
    ("site.toml", "name = \"testsite\"\n"),
    ("inventory/nodes.toml", "[groups.g]\nservices = [\"s\"]\n\n[nodes.n1]\ngroups = [\"g\"]\n"),
    ("services/s/service.toml", "[[task]]\nid = \"f\"\nfile = { path = \"/f\", source = \"f\" }\n"),
];

pub(crate) fn run() -> Vec<Row> {
    [Kind::Embedded, Kind::Mosquitto].into_iter().flat_map(measure).collect()
}

fn measure(kind: Kind) -> Vec<Row> {
    let mut files = FILES.to_vec();
    files.push(("services/s/f", "start"));
    let fleet = Fleet::started(kind, &files, &["n1"]);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fleet.git(&["config", "receive.denyCurrentBranch", "ignore"]);

    // A clone pushes; another repository that no planner watches takes the same pushes for the baseline.
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let (clone, idle) = (scratch.path().join("clone"), scratch.path().join("idle.git"));
    let source = fleet.repository();
    git(scratch.path(), &["clone", "-q", path(&source), path(&clone)]);
    git(scratch.path(), &["clone", "-q", "--bare", path(&source), path(&idle)]);
    let place = fleet.root("n1").join("f");
    let (mut whole, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let text = format!("round {round}");
        fs::write(clone.join("services/s/f"), &text).expect("a file");
        git(&clone, &["commit", "-q", "-a", "-m", "round"]);
        let start = Instant::now();
        git(&clone, &["push", "-q", path(&idle), "main"]);
        bare.push(millis(start.elapsed()));
        let start = Instant::now();
        let mut push = Command::new("git")
            .args(["push", "-q", path(&source), "main"])
            .current_dir(&clone)
            .spawn()
            .expect("git is installed");
        while fs::read(&place).ok().as_deref() != Some(text.as_bytes()) {
            assert!(start.elapsed() < Duration::from_secs(30), "round {round} did not arrive");
            std::thread::sleep(Duration::from_micros(200));
        }
        whole.push(millis(start.elapsed()));
        assert!(push.wait().expect("git push ends").success());
    }
    let baseline = quantile(&mut bare, 0.5);
    let name = format!("{kind:?}").to_lowercase();
    vec![
        Row::new(
            format!("push to file in place, median ({name} broker, {ROUNDS} pushes)"),
            quantile(&mut whole, 0.5),
            "ms",
        )
        .against("git push alone", baseline)
        .at_most(30.0),
        Row::new(format!("push to file in place, p99 ({name} broker)"), quantile(&mut whole, 0.99), "ms")
            .against("git push alone", baseline),
    ]
}

fn path(path: &Path) -> &str {
    path.to_str().expect("scratch directories have plain names")
}
