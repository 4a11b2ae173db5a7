//! What readers cost a rollout: a chain of tasks on two nodes by turns, each behind a gate, with a hundred clients that poll the planner's
//! status and without. Nothing but the readers differs between the two, so what is measured is how much they delay a gate.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use groundplan::api::{Client, requests::GetStatus};
use groundplan_tests::{brokers::Kind, fleet::Fleet};

use crate::table::{Row, millis, quantile};

const GATES: usize = 40;
const ROUNDS: usize = 15;
const READERS: usize = 100;
/// How often each reader asks: a hundred dashboards that refresh five times a second.
const EVERY: Duration = Duration::from_millis(200);

pub(crate) fn run() -> Vec<Row> {
    let mut inventory = String::new();
    let mut files = vec![("site.toml".to_owned(), "name = \"testsite\"\n[vars]\nround = 0\n".to_owned())];
    for node in ["n1", "n2"] {
        let services: Vec<String> = (0..GATES).filter(|i| of(*i) == node).map(|i| format!("\"s{i}\"")).collect();
        inventory.push_str(&format!("[groups.{node}]\nservices = [{}]\n\n", services.join(", ")));
        inventory.push_str(&format!("[nodes.{node}]\ngroups = [\"{node}\"]\n\n"));
    }
    files.push(("inventory/nodes.toml".to_owned(), inventory));
    for i in 0..GATES {
        let requires = i.checked_sub(1).map_or(String::new(), |before| format!("requires = [\"s{before}.f\"]\n"));
        let task =
            format!("[[task]]\nid = \"f\"\n{requires}file = {{ path = \"/f{i}\", content = \"{{{{ round }}}}\" }}\n");
        files.push((format!("services/s{i}/service.toml"), task));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let fleet = Fleet::started(Kind::Embedded, &files, &["n1", "n2"]);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));

    let (mut quiet, mut read) = (Vec::new(), Vec::new());
    let mut answers = 0;
    for round in 1..=ROUNDS {
        // By turns, so that whatever else the machine does meets both alike.
        quiet.push(rollout(&fleet, round * 2));
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let socket = fleet.planner_state("one").join("planner.sock");
        std::thread::scope(|scope| {
            scope.spawn(|| readers(&socket, &stop, &answered));
            read.push(rollout(&fleet, round * 2 + 1));
            stop.store(true, Ordering::Relaxed);
        });
        answers += answered.load(Ordering::Relaxed);
    }
    let (quiet, read) = (quantile(&mut quiet, 0.5), quantile(&mut read, 0.5));
    eprintln!("readers: {answers} answers in {ROUNDS} rounds");
    vec![
        Row::new(format!("a gate, commit to last of {GATES}, {READERS} readers polling, median"), read, "ms")
            .against("the same without readers", quiet),
    ]
}

fn of(i: usize) -> &'static str {
    if i.is_multiple_of(2) { "n1" } else { "n2" }
}

/// From the commit to the last file of the chain, by the number of gates, in milliseconds.
fn rollout(fleet: &Fleet, round: usize) -> f64 {
    let last: PathBuf = fleet.root(of(GATES - 1)).join(format!("f{}", GATES - 1));
    let text = round.to_string();
    let began = Instant::now();
    let commit = fleet.commit(&[("site.toml", &format!("name = \"testsite\"\n[vars]\nround = {round}\n"))], "round");
    while fs::read(&last).ok().as_deref() != Some(text.as_bytes()) {
        assert!(began.elapsed() < Duration::from_secs(60), "round {round} does not end");
        std::thread::sleep(Duration::from_micros(200));
    }
    let took = millis(began.elapsed());
    fleet.converged("one", &commit);
    took / GATES as f64
}

/// Polls from this process until it is to stop: a program started for each reader would take the time that is measured.
fn readers(socket: &Path, stop: &Arc<AtomicBool>, answered: &Arc<AtomicU64>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut readers = tokio::task::JoinSet::new();
        for n in 0..READERS as u32 {
            let (socket, stop, answered) = (socket.to_owned(), stop.clone(), answered.clone());
            readers.spawn(async move {
                tokio::time::sleep(EVERY * n / READERS as u32).await;
                let mut planner = Client::connect(&socket).await.expect("a planner");
                while !stop.load(Ordering::Relaxed) {
                    planner.ask(&GetStatus {}).await.expect("a status");
                    answered.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(EVERY).await;
                }
            });
        }
        readers.join_all().await;
    });
}
