//! What is loaded and when, given what becomes of it.

use groundplan_core::{DesiredState, desired::NodeInputs};
use groundplan_protocol::ids::SiteName;

use super::*;
use crate::commit::{Commit, DriftSettings};

fn id(digit: char) -> CommitId {
    CommitId::new(digit.to_string().repeat(40)).unwrap()
}

fn node() -> NodeId {
    NodeId::new("n1").unwrap()
}

fn export() -> TaskId {
    "db.address".parse().unwrap()
}

fn at(millis: u64) -> Now {
    Now { mono: Duration::from_millis(millis), wall_ms: millis }
}

/// A commit that asks for the facts of a node and for the value of an export.
fn commit(digit: char) -> Arc<ActiveCommit> {
    let site = SiteName::new("site").unwrap();
    let desired = DesiredState {
        site: site.clone(),
        nodes: vec![node()],
        lifecycles: Vec::new(),
        node_places: Vec::new(),
        graph: Default::default(),
        rollouts: BTreeMap::new(),
        retry: None,
        once: BTreeMap::new(),
        node_inputs: NodeInputs { facts: [node()].into(), exports: [export()].into() },
    };
    let commit = Commit { id: id(digit), subject: String::new(), author: String::new(), time: 0, rewinds: None };
    Arc::new(ActiveCommit {
        commit,
        site,
        desired: Arc::new(desired),
        drift: DriftSettings::default(),
        fast_forward_only: false,
    })
}

/// With a commit that is active.
fn active(digit: char) -> Deployment {
    let mut deployment = Deployment::new(Some(id(digit)), None);
    deployment.start(true, at(0));
    deployment.accept(commit(digit), false, at(0));
    deployment
}

/// The commit that is to be loaded, if one is.
fn loads(deployment: &mut Deployment, now: u64) -> Option<CommitId> {
    match deployment.start(true, at(now))? {
        Job::Load { commit, .. } => Some(commit),
        Job::Plan { .. } => panic!("a plan is started"),
    }
}

fn unreadable(deployment: &mut Deployment, now: u64) {
    deployment.not_accepted(Some("the repository is locked".to_owned()), at(now));
}

fn deadline(deployment: &Deployment) -> Option<u64> {
    deployment.deadline(true).map(|at| at.as_millis() as u64)
}

#[test]
fn news_that_no_commit_could_be_read_for_stay_news() {
    let mut deployment = active('a');
    deployment.export_changed(&export(), at(1000));
    assert_eq!(loads(&mut deployment, 1030), Some(id('a')));
    unreadable(&mut deployment, 1100);
    assert!(deployment.is_due() && deployment.holds_gates(), "the value is not planned with");
    assert_eq!(deadline(&deployment), Some(3100));
    assert_eq!(loads(&mut deployment, 3099), None);
    assert_eq!(loads(&mut deployment, 3100), Some(id('a')));
    deployment.accept(commit('a'), true, at(3200));
    assert!(!deployment.is_due() && !deployment.holds_gates());
}

#[test]
fn a_plan_does_not_wait_for_news_that_no_commit_can_be_read_for() {
    let mut deployment = active('a');
    deployment.facts_changed(&node(), true, at(1000));
    loads(&mut deployment, 1030);
    deployment.plan_soon(at(1050), true);
    unreadable(&mut deployment, 1100);
    assert!(matches!(deployment.start(true, at(1100)), Some(Job::Plan { .. })));
}

#[test]
fn further_news_take_along_those_that_no_commit_could_be_read_for() {
    let mut deployment = active('a');
    deployment.export_changed(&export(), at(1000));
    loads(&mut deployment, 1030);
    unreadable(&mut deployment, 1100);
    deployment.facts_changed(&node(), true, at(1200));
    assert_eq!(loads(&mut deployment, 1230), Some(id('a')));
    assert!(deployment.holds_gates());
    deployment.accept(commit('a'), true, at(1300));
    assert!(!deployment.is_due());
}

#[test]
fn a_tip_takes_along_news_that_no_commit_could_be_read_for() {
    let mut deployment = active('a');
    deployment.export_changed(&export(), at(1000));
    loads(&mut deployment, 1030);
    unreadable(&mut deployment, 1100);
    deployment.tip(id('b'));
    assert_eq!(loads(&mut deployment, 1200), Some(id('b')));
    deployment.accept(commit('b'), false, at(1300));
    assert!(!deployment.is_due());
}

#[test]
fn what_was_active_is_read_again_until_it_is_active_or_a_tip_is() {
    let mut deployment = Deployment::new(Some(id('a')), None);
    assert_eq!(loads(&mut deployment, 1000), Some(id('a')));
    unreadable(&mut deployment, 1100);
    // The tip does not wait for it, and may have faults.
    deployment.tip(id('b'));
    assert_eq!(loads(&mut deployment, 1200), Some(id('b')));
    assert_eq!(loads(&mut deployment, 3100), None);
    deployment.not_accepted(None, at(3200));
    assert_eq!(loads(&mut deployment, 3200), Some(id('a')));
    unreadable(&mut deployment, 3300);
    assert_eq!(deadline(&deployment), Some(5300));
    deployment.tip(id('c'));
    assert_eq!(loads(&mut deployment, 3400), Some(id('c')));
    deployment.accept(commit('c'), false, at(3500));
    assert!(!deployment.is_due());
    assert_eq!(loads(&mut deployment, 5300), None);
}

#[test]
fn nothing_is_woken_for_a_tip_that_waits_until_what_was_active_is_so_again() {
    let mut deployment = Deployment::new(Some(id('a')), None);
    loads(&mut deployment, 1000);
    unreadable(&mut deployment, 1100);
    deployment.tip(id('b'));
    assert_eq!(loads(&mut deployment, 1200), Some(id('b')));
    unreadable(&mut deployment, 1300);
    assert_eq!(loads(&mut deployment, 3100), Some(id('a')));
    assert_eq!((loads(&mut deployment, 3300), deadline(&deployment)), (None, None), "the answer wakes it");
    deployment.accept(commit('a'), false, at(3400));
    assert_eq!(loads(&mut deployment, 3400), Some(id('b')));
}
