//! Which tasks claim which things on the host, by the claims that their parameters state; and which a job works on.
//!
//! Within one commit no two tasks have the same exclusive claim. Across commits they may: a task is renamed, or moves to a
//! path that another one gives up. Whichever job comes first, what the one made must not be lost to the removal of the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::discriminant,
    pin::pin,
    sync::{Mutex, MutexGuard},
};

use groundplan_protocol::{
    ids::{Generation, TaskId},
    kinds::{Claim, TaskParams, Thing},
};
use tokio::sync::Notify;

use super::{aliases::own_name, cancel::Cancel, fs::paths::Root};
use crate::machine::Promise;

/// The tasks of each claim, each with the plan by which it has it: of no account for what is applied.
type Claimants = BTreeMap<Claim<'static>, BTreeMap<TaskId, Generation>>;

/// Who claims what.
#[derive(Debug, Default)]
struct Claimed {
    /// By jobs: what is applied, and what they are about to make.
    held: Claimants,
    /// By plans: what tasks are about to take over from others.
    promised: Claimants,
}

impl Claimed {
    fn tasks<'a>(&'a self, claim: &'a Claim<'a>) -> impl Iterator<Item = &'a TaskId> {
        let maps: [&'a BTreeMap<Claim<'a>, BTreeMap<TaskId, Generation>>; 2] = [&self.held, &self.promised];
        maps.into_iter().filter_map(move |map| map.get(claim)).flat_map(BTreeMap::keys)
    }

    fn iter(&self) -> impl Iterator<Item = (&Claim<'static>, impl Iterator<Item = &TaskId>)> {
        self.held.iter().chain(&self.promised).map(|(claim, tasks)| (claim, tasks.keys()))
    }
}

/// Of claims that are stated by another name than the thing's own: by that name, the tasks with what each states.
type Aliases = BTreeMap<Claim<'static>, BTreeMap<TaskId, Claim<'static>>>;

/// The claims of all applied tasks of this host, by what is claimed, and those that jobs work on.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    claimed: Mutex<Claimed>,
    aliases: Mutex<Aliases>,
    /// Where names are looked up; without it every name is a thing's own.
    root: Option<Root>,
    busy: Mutex<BTreeSet<Claim<'static>>>,
    released: Notify,
}

/// A job's exclusive use of what it may change, until it is dropped.
#[derive(Debug)]
pub(crate) struct InUse<'a> {
    claims: &'a Claims,
    used: BTreeSet<Claim<'static>>,
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        let mut busy = self.claims.busy.lock().unwrap_or_else(|e| e.into_inner());
        busy.retain(|claim| !self.used.contains(claim));
        drop(busy);
        self.claims.released.notify_waiters();
    }
}

impl Claims {
    /// Waits until no other job works on any of these claims, and then takes all of them; `None` if the job is cancelled meanwhile.
    /// All or none: a job that waits has none of them, so that two jobs never wait for each other.
    pub(crate) async fn work_on(&self, used: BTreeSet<Claim<'static>>, cancel: &Cancel) -> Option<InUse<'_>> {
        loop {
            // Registered before the attempt: what is released in between would go unnoticed.
            let mut released = pin!(self.released.notified());
            released.as_mut().enable();
            {
                let mut busy = self.busy.lock().unwrap_or_else(|e| e.into_inner());
                if busy.is_disjoint(&used) {
                    busy.extend(used.iter().cloned());
                    return Some(InUse { claims: self, used });
                }
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return None,
                () = released => {}
            }
        }
    }

    /// None yet, of a host whose files are below `root`.
    pub(crate) fn on(root: Root) -> Self {
        Self { root: Some(root), ..Self::default() }
    }

    /// The claim by the thing's own name on this host, if it is stated by another one.
    fn own_name(&self, claim: &Claim<'_>) -> Option<Claim<'static>> {
        own_name(self.root.as_ref()?, claim)
    }

    /// Whether both are about one thing, under two names that this host has for it.
    pub(crate) fn are_one(&self, before: &TaskParams, after: &TaskParams, task: &TaskId) -> bool {
        let own = |params: &TaskParams| -> Vec<Claim<'static>> {
            let subject = params.subject(task).into_iter();
            subject.map(|claim| self.own_name(&claim).unwrap_or_else(|| claim.into_owned())).collect()
        };
        before.kind() == after.kind() && own(before) == own(after)
    }

    /// A thing that `task` claims and another task claims under another name, and that task.
    pub(crate) fn held_by_alias(&self, params: &TaskParams, task: &TaskId) -> Option<(Claim<'static>, TaskId)> {
        let mut found = None;
        params.claims(task, &mut |stated| {
            if found.is_none() && !stated.shared {
                found = self.alias_held(&stated.claim, task);
            }
        });
        found
    }

    fn alias_held(&self, claim: &Claim<'_>, task: &TaskId) -> Option<(Claim<'static>, TaskId)> {
        let (stated, own) = (claim.clone().into_owned(), self.own_name(claim));
        let by_own = own.as_ref().and_then(|own| self.held_by_name(own, task));
        let own = own.unwrap_or_else(|| stated.clone());
        let by_alias = || {
            let aliases = self.aliases();
            let mut others = aliases.get(&own)?.iter();
            others.find(|(other, name)| *other != task && **name != stated).map(|(other, _)| other.clone())
        };
        by_own.or_else(by_alias).map(|other| (own.clone(), other))
    }

    /// The other names that this host, or a task, has for what is claimed.
    pub(crate) fn other_names(&self, claim: &Claim<'_>) -> Vec<Claim<'static>> {
        let own = self.own_name(claim).unwrap_or_else(|| claim.clone().into_owned());
        let mut names: Vec<_> =
            self.aliases().get(&own).into_iter().flat_map(|tasks| tasks.values().cloned()).collect();
        names.push(own);
        names.retain(|name| name != claim);
        names
    }

    fn aliases(&self) -> MutexGuard<'_, Aliases> {
        self.aliases.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Adds all that `task` claims with these parameters.
    pub(crate) fn add(&self, params: &TaskParams, task: &TaskId) {
        params.claims(task, &mut |stated| {
            if let Some(own) = self.own_name(&stated.claim) {
                self.aliases().entry(own).or_default().insert(task.clone(), stated.claim.clone().into_owned());
            }
        });
        add(&mut self.lock().held, params, task, Generation(0));
    }

    /// Has these tasks claim what these parameters state, in place of all that was promised before.
    pub(crate) fn promise(&self, promises: &[Promise]) {
        let mut promised = Claimants::new();
        promises.iter().for_each(|Promise { task, params, plan }| add(&mut promised, params, task, *plan));
        self.lock().promised = promised;
    }

    /// Takes all that `task` claims with these parameters away from it, but for what it also claims with `kept`.
    pub(crate) fn release(&self, params: &TaskParams, kept: Option<&TaskParams>, task: &TaskId) {
        let mut released = BTreeSet::new();
        stated(params, task, &mut |claim| _ = released.insert(claim));
        if let Some(kept) = kept {
            stated(kept, task, &mut |claim| _ = released.remove(&claim));
        }
        let claims = &mut self.lock().held;
        for claim in released {
            let claim = claim.into_owned();
            self.aliases().retain(|_, tasks| {
                if tasks.get(task) == Some(&claim) {
                    tasks.remove(task);
                }
                !tasks.is_empty()
            });
            if let Some(tasks) = claims.get_mut(&claim) {
                tasks.remove(task);
                if tasks.is_empty() {
                    claims.remove(&claim);
                }
            }
        }
    }

    /// Ends the promise that `task` claims what these parameters state, but for what it also claims with `kept`. A promise by a newer plan
    /// than `plan` stays: the job that ends it is still to come.
    pub(crate) fn break_promise(
        &self,
        params: &TaskParams,
        kept: Option<&TaskParams>,
        task: &TaskId,
        plan: Generation,
    ) {
        let mut broken = BTreeSet::new();
        stated(params, task, &mut |claim| _ = broken.insert(claim.into_owned()));
        if let Some(kept) = kept {
            stated(kept, task, &mut |claim| _ = broken.remove(&claim.into_owned()));
        }
        self.lock().promised.retain(|claim, tasks| {
            if broken.contains(claim) && tasks.get(task).is_some_and(|by| *by <= plan) {
                tasks.remove(task);
            }
            !tasks.is_empty()
        });
    }

    /// Another task than `task` that has the claim, if there is one; `yielding` are left out.
    pub(crate) fn held_by_another(&self, claim: &Claim<'_>, task: &TaskId, yielding: &[TaskId]) -> Option<TaskId> {
        let by_alias =
            || self.alias_held(claim, task).map(|(_, other)| other).filter(|other| !yielding.contains(other));
        self.held_by_any_but(claim, task, yielding).or_else(by_alias)
    }

    fn held_by_name(&self, claim: &Claim<'_>, task: &TaskId) -> Option<TaskId> {
        self.lock().tasks(claim).find(|other| *other != task).cloned()
    }

    /// Another task than `task` and `others` that has the claim by this name, if there is one.
    pub(crate) fn held_by_any_but(&self, claim: &Claim<'_>, task: &TaskId, others: &[TaskId]) -> Option<TaskId> {
        self.lock().tasks(claim).find(|other| *other != task && !others.contains(other)).cloned()
    }

    /// Those of `among` that claim something that `task` claims with these parameters.
    pub(crate) fn heirs(&self, params: &TaskParams, task: &TaskId, among: &[TaskId]) -> Vec<TaskId> {
        if among.is_empty() {
            return Vec::new();
        }
        let mut heirs = BTreeSet::new();
        params.identity(task, &mut |claim| {
            heirs.extend(self.lock().tasks(&claim).filter(|other| among.contains(other)).cloned());
        });
        heirs.into_iter().collect()
    }

    /// The paths below `directory` of which other tasks than `task` claim all or a part, each with one of these tasks.
    pub(crate) fn below(&self, directory: &str, task: &TaskId) -> BTreeMap<String, TaskId> {
        let directory = directory.trim_end_matches('/');
        let mut below = BTreeMap::new();
        for (claim, tasks) in self.lock().iter() {
            let (Claim::Path(path)
            | Claim::Option { path, .. }
            | Claim::Line { path, .. }
            | Claim::Part { of: path, .. }) = claim
            else {
                continue;
            };
            let is_below = path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
            if let Some(other) = { tasks }.find(|other| *other != task).filter(|_| is_below) {
                below.insert(path.to_string(), other.clone());
            }
        }
        below
    }

    /// Whether any task has the claim.
    pub(crate) fn is_held(&self, claim: &Claim<'_>) -> bool {
        self.lock().tasks(claim).next().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Claimed> {
        self.claimed.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn add(claims: &mut Claimants, params: &TaskParams, task: &TaskId, plan: Generation) {
    stated(params, task, &mut |claim| {
        let by = claims.entry(claim.into_owned()).or_default().entry(task.clone()).or_insert(plan);
        *by = plan.max(*by);
    });
}

/// Calls `each` with all that a task claims. What a task finds its line or block by changes hands as well, though any number of tasks may
/// look for the same; and so does the directory of an archive.
fn stated<'a>(params: &'a TaskParams, task: &'a TaskId, each: &mut dyn FnMut(Claim<'a>)) {
    params.claims(task, &mut |stated| each(stated.claim));
    if matches!(params, TaskParams::Line(_) | TaskParams::Archive(_)) {
        params.identity(task, each);
    }
}

/// Whether an update from `before` to `after` gives up what the task was about, so that what was applied is removed.
pub(crate) fn replaces(before: &TaskParams, after: &TaskParams, task: &TaskId) -> bool {
    // Another kind cannot undo what this one did, nor read what it remembers.
    before.subject(task) != after.subject(task) || !is_one_family(before, after)
}

/// Whether the old must be removed before the new is applied: otherwise the two would be in each other's way.
pub(crate) fn must_go_first(before: &TaskParams, after: &TaskParams, task: &TaskId) -> bool {
    match (before, after) {
        (TaskParams::Process(_), _) | (_, TaskParams::Process(_)) => true,
        // What the task remembers is about the old one.
        (TaskParams::Plugin(_), _) | (_, TaskParams::Plugin(_)) => true,
        // Their successors may use the same ports, and have parts of the same names.
        (TaskParams::Container(_) | TaskParams::Pod(_), _) => true,
        _ => are_at_one_place(before, after, task),
    }
}

/// Whether one takes the place of the other as it is: what the first found there is what the second finds.
fn is_one_family(before: &TaskParams, after: &TaskParams) -> bool {
    let is_file =
        |params: &TaskParams| matches!(params, TaskParams::File(_) | TaskParams::Template(_) | TaskParams::Link(_));
    is_file(before) && is_file(after) || discriminant(before) == discriminant(after)
}

/// Whether the removal of the old would take away what the new makes, or the old is where the new needs a directory.
fn are_at_one_place(before: &TaskParams, after: &TaskParams, task: &TaskId) -> bool {
    let is_below = |path: &str, above: &str| path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
    let news = paths(after, task);
    let is_one_family = is_one_family(before, after);
    paths(before, task).iter().any(|old| {
        news.iter().any(|new| match is_one_family {
            true => is_below(new, old) && !matches!(before, TaskParams::Directory(_)),
            false => new == old || is_below(new, old) || is_below(old, new),
        })
    })
}

/// The paths of what a task makes or edits.
fn paths(params: &TaskParams, task: &TaskId) -> Vec<String> {
    let mut paths: Vec<String> = params
        .things(task)
        .into_iter()
        .filter_map(|thing| match thing {
            Thing::Path(path) => Some(path.into_owned()),
            Thing::Package(_) => None,
        })
        .collect();
    if let TaskParams::Systemd(unit) = params {
        paths.extend([unit.path(), unit.folder()]);
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(json: &str) -> TaskParams {
        serde_json::from_str(json).unwrap()
    }

    fn task(name: &str) -> TaskId {
        name.parse().unwrap()
    }

    #[test]
    fn a_claim_passes_from_one_task_to_another() {
        let (claims, one, two) = (Claims::default(), task("s.one"), task("s.two"));
        let (link, file) = (params(r#"{"link":{"path":"/a","target":"b"}}"#), params(r#"{"file":{"path":"/a"}}"#));
        claims.add(&link, &one);
        assert_eq!(claims.held_by_another(&Claim::path("/a"), &one, &[]), None);
        claims.add(&file, &two);
        assert_eq!(claims.held_by_another(&Claim::path("/a"), &one, &[]), Some(two.clone()));
        claims.release(&link, None, &one);
        assert_eq!(claims.held_by_another(&Claim::path("/a"), &two, &[]), None);
        claims.release(&file, Some(&file), &two);
        assert!(claims.is_held(&Claim::path("/a")), "what it still claims is kept");
        claims.release(&file, None, &two);
        assert!(!claims.is_held(&Claim::path("/a")));
    }

    #[test]
    fn what_is_promised_is_claimed_whatever_jobs_release() {
        let (claims, one, two) = (Claims::default(), task("s.one"), task("s.two"));
        let file = params(r#"{"file":{"path":"/a"}}"#);
        claims.add(&file, &one);
        let promise = Promise { task: one.clone(), params: file.clone(), plan: Generation(2) };
        claims.promise(&[promise]);
        // A job of an older plan does not end it.
        claims.break_promise(&file, None, &one, Generation(1));
        claims.release(&file, None, &one);
        assert_eq!(claims.held_by_another(&Claim::path("/a"), &two, &[]), Some(one));
        claims.promise(&[]);
        assert!(!claims.is_held(&Claim::path("/a")));
    }

    #[tokio::test]
    async fn one_job_at_a_time_works_on_a_claim() {
        let claims = Claims::default();
        let set = |paths: &[&'static str]| paths.iter().map(|path| Claim::path(path)).collect::<BTreeSet<_>>();
        let never = Cancel::never();
        let first = claims.work_on(set(&["/a", "/b"]), &never).await.unwrap();
        let _other = claims.work_on(set(&["/c"]), &never).await.unwrap();
        let mut waiting = pin!(claims.work_on(set(&["/b", "/d"]), &never));
        assert!(futures_now(&mut waiting).await.is_none(), "it waits");
        let canceller = crate::host::cancel::Canceller::new();
        canceller.cancel();
        assert!(claims.work_on(set(&["/a"]), &canceller.listen()).await.is_none());
        drop(first);
        let _second = waiting.await.unwrap();
        assert!(claims.work_on(set(&["/a"]), &never).await.is_some());
    }

    /// The future's result, if it has one at once.
    async fn futures_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            out = future => Some(out),
            () = std::future::ready(()) => None,
        }
    }

    #[test]
    fn what_others_claim_below_a_directory() {
        let (claims, one, two) = (Claims::default(), task("s.one"), task("s.two"));
        claims.add(&params(r#"{"archive":{"source":"a","dest":"/opt/a"}}"#), &one);
        claims.add(&params(r#"{"link":{"path":"/opt/a/own","target":"b"}}"#), &one);
        claims.add(&params(r#"{"file":{"path":"/opt/a/x"}}"#), &two);
        claims.add(&params(r#"{"line":{"path":"/opt/a/etc/y","match":"^a","state":"absent"}}"#), &two);
        claims.add(&params(r#"{"file":{"path":"/opt/ab"}}"#), &two);
        let below = [("/opt/a/etc/y", &two), ("/opt/a/x", &two)].map(|(path, task)| (path.to_owned(), task.clone()));
        assert_eq!(claims.below("/opt/a", &one), below.clone().into());
        assert_eq!(claims.below("/opt/a/", &one), below.into());
        assert_eq!(claims.below("/", &one).len(), 3);
    }

    #[test]
    fn what_an_update_replaces_and_what_must_go_first() {
        let of = |before: &str, after: &str| {
            let (before, after, task) = (params(before), params(after), task("s.t"));
            (replaces(&before, &after, &task), must_go_first(&before, &after, &task))
        };
        let (file, moved) = (r#"{"file":{"path":"/a"}}"#, r#"{"file":{"path":"/b"}}"#);
        let (link, directory) = (r#"{"link":{"path":"/a","target":"b"}}"#, r#"{"directory":{"path":"/a"}}"#);
        assert_eq!(of(file, file), (false, false));
        assert_eq!(of(file, link), (false, false), "it takes the place of the file");
        assert_eq!(of(file, moved), (true, false));
        assert_eq!(of(file, directory), (true, true));
        assert_eq!(of(directory, moved), (true, false));
        let command = r#"{"command":{"run":"true"}}"#;
        assert_eq!(
            (of(command, command), of(file, command), of(command, file)),
            ((false, false), (true, false), (true, false))
        );
        let option = |path: &str, name: &str| {
            format!(r#"{{"ini":{{"path":"{path}","section":"s","option":"{name}","value":1}}}}"#)
        };
        assert_eq!(of(&option("/i", "a"), &option("/i", "b")), (false, false), "the kind takes single options back");
        assert_eq!(of(&option("/i", "a"), &option("/j", "a")), (true, false));
        assert_eq!(of(r#"{"process":{"run":"a"}}"#, r#"{"process":{"run":"b"}}"#), (false, true));
        let plugin = |claims: &str| format!(r#"{{"plugin":{{"name":"p","claims":[{claims}]}}}}"#);
        assert_eq!(of(&plugin(r#"{"path":"/a"}"#), file), (true, true));
        assert_eq!(of(&plugin(r#"{"path":"/a"}"#), &plugin(r#"{"path":"/a"},{"path":"/b"}"#)), (true, true));
        assert_eq!(of(&plugin(""), &plugin("")), (false, true));
    }
}
