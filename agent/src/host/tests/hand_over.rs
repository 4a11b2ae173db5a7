//! What updates give up and other tasks take over: whichever job comes first, nothing is taken away in between.

use super::*;

/// The jobs that make of `(task, before, after)` what a plan with all these updates makes, without running them.
fn exchange(site: &Site, updates: &[(&str, TaskSpec, TaskSpec)]) -> Vec<Job> {
    let parties: Vec<TaskId> = updates.iter().map(|(task, ..)| id(task)).collect();
    let promise = |(task, _, after): &(&str, TaskSpec, TaskSpec)| Promise {
        task: id(task),
        params: after.params.clone(),
        plan: Generation(1),
    };
    let promises: Vec<_> = updates.iter().map(promise).collect();
    site.host.promise(&promises);
    let memories = site.memories.lock().unwrap().clone();
    let job = |(task, before, after): &(&str, TaskSpec, TaskSpec)| {
        let claims = |spec: &TaskSpec| spec.identity(&id(task));
        let giver = updates.iter().find(|(_, given, _)| claims(given) == claims(after));
        let taken = giver.and_then(|(giver, ..)| memories.get(*giver).cloned());
        let earlier = vec![Earlier { params: before.params.clone(), memory: memories.get(*task).cloned() }];
        let others = parties.iter().filter(|other| **other != id(task)).cloned().collect();
        Job { earlier, others, touched: true, ..job(task, apply(after, None), None, taken) }
    };
    updates.iter().map(job).collect()
}

async fn run(site: &Site, job: Job) -> Finished {
    let task = job.task.to_string();
    // As the machine does: what was noted changes hands as well.
    match job.memory.clone() {
        Some(memory) => drop(site.memories.lock().unwrap().insert(task.clone(), memory)),
        None => drop(site.memories.lock().unwrap().remove(&task)),
    }
    let finished = site.host.run(job, Cancel::never()).await;
    site.note(&task, &finished, false);
    finished
}

#[tokio::test]
async fn two_tasks_exchange_what_they_own() {
    let directory = |path: &str| spec(json!({ "directory": { "path": path } }));
    let link = |path: &str| spec(json!({ "link": { "path": path, "target": "t" } }));
    let ini = |name: &str| spec(json!({ "ini": { "path": "/i", "section": "s", "option": name, "value": "new" } }));
    let line = |text: &str| spec(json!({ "line": { "path": "/l", "line": text } }));
    let absent = spec(json!({ "line": { "path": "/l", "match": "^first", "state": "absent" } }));
    let block = spec(json!({ "line": { "path": "/l", "marker": "# {mark} it", "block": "1\n2" } }));
    let cases: [[TaskSpec; 2]; 7] = [
        [file("/a", "content"), file("/b", "content")],
        [directory("/a"), directory("/b")],
        [link("/a"), link("/b")],
        [ini("a"), ini("b")],
        [line("a"), line("b")],
        [absent.clone(), ini("a")],
        [block, absent],
    ];
    for [a, b] in cases {
        for reversed in [false, true] {
            let site = Site::new();
            fs::write(site.at("i"), "[s]\na = old\n").unwrap();
            fs::write(site.at("l"), "first\n").unwrap();
            let before = tree(&site);
            for (task, spec) in [("svc.one", &a), ("svc.two", &b)] {
                assert_eq!(site.job(task, apply(spec, None), None).await.result, CHANGED, "{:?}", spec.params);
            }
            let applied = tree(&site);
            let updates = [("svc.one", a.clone(), b.clone()), ("svc.two", b.clone(), a.clone())];
            let mut jobs = exchange(&site, &updates);
            if reversed {
                jobs.reverse();
            }
            for job in jobs {
                let what = format!("{:?} of {:?}", job.task, a.params.kind());
                assert_eq!(run(&site, job).await.result, UNCHANGED, "{what}");
                assert_eq!(tree(&site), applied, "{what}");
            }
            site.host.promise(&[]);
            // Each has what the other one had, and gives back what that found.
            for (task, spec) in [("svc.one", &b), ("svc.two", &a)] {
                let removed = site.job(task, Work::Remove { spec: spec.clone() }, None).await;
                assert_eq!(removed.result, CHANGED, "{task}, {reversed}: {:?}", spec.params);
            }
            assert_eq!(tree(&site), before, "{}", a.params.kind());
            assert!(site.found.lock().unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn an_heir_that_wants_another_line_remembers_what_was_there_before_both() {
    let wants =
        |value: u32| spec(json!({ "line": { "path": "/l", "match": "^#?key=", "line": format!("key={value}") } }));
    for before in [None, Some("#key=theirs\n"), Some("other\n")] {
        let site = Site::new();
        if let Some(text) = before {
            fs::write(site.at("l"), text).unwrap();
        }
        assert_eq!(site.job("svc.one", apply(&wants(1), None), None).await.result, CHANGED);
        let memory = site.memories.lock().unwrap().get("svc.one").cloned();
        let heir = Job { others: vec![id("svc.one")], ..job("svc.two", apply(&wants(2), None), None, memory) };
        assert_eq!(run(&site, heir).await.result, CHANGED);
        let memory = site.memories.lock().unwrap().get("svc.one").cloned();
        let removal = Work::Remove { spec: wants(1) };
        let removal = Job { others: vec![id("svc.two")], touched: true, ..job("svc.one", removal, None, memory) };
        assert_eq!(run(&site, removal).await.result, UNCHANGED);
        assert!(fs::read_to_string(site.at("l")).unwrap().contains("key=2"));
        let removed = site.job("svc.two", Work::Remove { spec: wants(2) }, None).await;
        assert_eq!(removed.result, CHANGED);
        assert_eq!(fs::read_to_string(site.at("l")).ok().as_deref(), before, "{before:?}");
    }
}

#[tokio::test]
async fn a_successor_of_an_earlier_plan_keeps_its_line_when_the_former_goes_or_becomes_something_else() {
    let absent = spec(json!({ "line": { "path": "/l", "match": "^#?key=", "state": "absent" } }));
    let block = spec(json!({ "line": { "path": "/l", "marker": "# {mark} it", "block": "1\n2" } }));
    for (line, there) in [(absent, "other\n"), (block, "#key=theirs\nother\n# BEGIN it\n1\n2\n# END it\n")] {
        for becomes in [None, Some(file("/f", "content"))] {
            let site = Site::new();
            fs::write(site.at("l"), "#key=theirs\nother\n").unwrap();
            assert_eq!(site.job("svc.one", apply(&line, None), None).await.result, CHANGED);
            let memory = site.memories.lock().unwrap().get("svc.one").cloned();
            let heir = Job { others: vec![id("svc.one")], ..job("svc.two", apply(&line, None), None, memory) };
            assert_eq!(run(&site, heir).await.result, UNCHANGED);
            // A newer plan came before the former gave it up, and has it alone.
            let work = match becomes {
                Some(file) => Work::Apply { spec: file, content: None, previous: Some(line.clone()) },
                None => Work::Remove { spec: line.clone() },
            };
            let memory = site.memories.lock().unwrap().get("svc.one").cloned();
            let former = Job { touched: true, ..job("svc.one", work, None, memory) };
            run(&site, former).await.result.unwrap();
            assert_eq!(fs::read_to_string(site.at("l")).unwrap(), there);
            let removed = site.job("svc.two", Work::Remove { spec: line.clone() }, None).await;
            assert_eq!(removed.result, CHANGED);
            assert_eq!(fs::read_to_string(site.at("l")).unwrap(), "#key=theirs\nother\n");
        }
    }
}
