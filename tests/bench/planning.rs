//! Commit to plan, without nodes or broker: read from git, parse, resolve, plan. The baseline is the time that git itself takes to read
//! the same tree.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use groundplan::{
    repository::Repository,
    site::{Cache, load},
};
use groundplan_core::{AppliedState, Policy, plan::plan};

use crate::{
    generate::{self, Size},
    table::{Row, millis, quantile},
};

const ROUNDS: usize = 9;

pub(crate) fn run() -> Vec<Row> {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let path = directory.path();
    generate::site(path, &Size { nodes: 1000, services: 1000, per_node: 20 });
    let repository = Repository::open(path).expect("a repository");
    let read = |cache: &mut Cache| {
        let tip = repository.branch("main").expect("a branch");
        let tree = repository.tree(&tip).expect("a tree");
        load(&tree, &groundplan_core::Knowledge::default(), cache).expect("a good site").desired
    };

    let mut baseline: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            let status = Command::new("git")
                .args(["archive", "HEAD"])
                .current_dir(path)
                .stdout(Stdio::null())
                .status()
                .expect("git is installed");
            assert!(status.success());
            millis(start.elapsed())
        })
        .collect();
    let baseline = quantile(&mut baseline, 0.5);

    // Cold: nothing parsed before. The nodes have the commit before this one applied, so that the plan is that of a push.
    let mut cache = Cache::default();
    let first = read(&mut cache);
    let instances: usize = first.graph.tasks.iter().map(|t| t.instances.len()).sum();
    let applied = AppliedState::of(&first);
    let mut cold = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let desired = read(&mut Cache::default());
        let plan = plan(&desired, &applied, &Policy::default());
        cold.push(millis(start.elapsed()));
        assert!(plan.actions.is_empty(), "planning what is applied is empty");
    }
    let nothing = AppliedState {
        nodes: first.nodes.iter().map(|n| (n.clone(), Default::default())).collect(),
        ..AppliedState::default()
    };
    let mut initial = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let desired = read(&mut Cache::default());
        let plan = plan(&desired, &nothing, &Policy::default());
        initial.push(millis(start.elapsed()));
        assert_eq!(plan.actions.len(), instances);
    }

    // Warm: a one-file commit, as the planner sees it.
    let mut warm = Vec::new();
    for round in 0..ROUNDS {
        let file = path.join("services/s500/conf.j2");
        std::fs::write(&file, format!("region = {{{{ region }}}}\nport = {{{{ port_s500 }}}}\nround = {round}\n"))
            .expect("a file");
        generate::commit(path, "one file");
        let start = Instant::now();
        let desired = read(&mut cache);
        let plan = plan(&desired, &applied, &Policy::default());
        warm.push(millis(start.elapsed()));
        assert_eq!(plan.actions.len(), 40, "the template and its process on the 20 nodes that run s500");
    }

    let git = "git archive of the same tree";
    vec![
        Row::new(format!("plan, cold, nothing changed ({instances} instances)"), quantile(&mut cold, 0.5), "ms")
            .against(git, baseline)
            .at_most(100.0),
        Row::new("plan, cold, everything new", quantile(&mut initial, 0.5), "ms").against(git, baseline).at_most(100.0),
        Row::new("plan, after a one-file commit", quantile(&mut warm, 0.5), "ms").against(git, baseline).at_most(20.0),
    ]
}
