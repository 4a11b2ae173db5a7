//! Plugins: kinds that are carried out by programs of the site.

use groundplan_protocol::digest::Digest;

use super::*;
use crate::host::{cancel::Canceller, job::Content};

/// A plugin that keeps a file: `path` holds `text`. What was there before comes back.
const KEEP: &str = r#"#!/bin/sh
path="$GROUNDPLAN_ROOT$GROUNDPLAN_PARAM_PATH"
echo "$GROUNDPLAN_REQUEST ${GROUNDPLAN_MEMORY-}" >> "$GROUNDPLAN_ROOT/log"
case $GROUNDPLAN_REQUEST in
check)
    if [ "$(cat "$path" 2>/dev/null)" = "$GROUNDPLAN_PARAM_TEXT" ]; then echo '{"so":true}'; else echo '{"so":false}'; fi ;;
apply)
    before=$(cat "$path" 2>/dev/null)
    printf %s "$GROUNDPLAN_PARAM_TEXT" > "$path"
    printf '{"changed":true,"memory":"%s","output":"it was %s"}' "${GROUNDPLAN_MEMORY-$before}" "$before" ;;
remove)
    if [ -n "${GROUNDPLAN_MEMORY-}" ]; then printf %s "$GROUNDPLAN_MEMORY" > "$path"; else rm -f "$path"; fi
    echo '{"changed":true}' ;;
*)
    echo '{"changed":true}' ;;
esac
"#;

fn plugin(program: &str, more: Value) -> TaskSpec {
    let mut plugin = json!({ "name": "keep", "program": Digest::of(program.as_bytes()) });
    plugin.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    TaskSpec { content: Some(Shipped::of(program.as_bytes())), ..spec(json!({ "plugin": plugin })) }
}

fn keep(text: &str) -> TaskSpec {
    plugin(
        KEEP,
        json!({ "params": { "path": "/kept", "text": text }, "claims": [{ "path": "/kept" }], "effects": ["restart"] }),
    )
}

/// The spec as recorded in the ledger.
fn recorded(spec: &TaskSpec) -> TaskSpec {
    TaskSpec { content: None, ..spec.clone() }
}

fn programs(site: &Site) -> usize {
    fs::read_dir(site.state("plugins")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn the_program_applies_checks_triggers_and_removes() {
    let site = Site::new();
    fs::write(site.at("/kept"), "theirs").unwrap();
    let (one, two) = (keep("one"), keep("two"));
    let job = site.job("svc.task", apply(&one, None), None).await;
    assert_eq!((job.result, job.output.unwrap().head), (CHANGED, "it was theirs\n".to_owned()));
    assert_eq!(site.create(&one).await, UNCHANGED);
    assert_eq!(site.update(&recorded(&one), &two).await, CHANGED);
    assert_eq!(fs::read_to_string(site.at("/kept")).unwrap(), "two");
    // A spec without content finds the program by its digest, also after the agent was restarted.
    let site = site.after_a_crash();
    let applied = [(id("svc.task"), two.params.clone())];
    site.host.adopt(&applied).await;
    assert_eq!(site.trigger(&recorded(&two), Effect::Restart).await, effected(Effect::Restart));
    assert_eq!(site.remove(&recorded(&two)).await, CHANGED);
    assert_eq!(fs::read_to_string(site.at("/kept")).unwrap(), "theirs", "the content from before the task is restored");
    let log = fs::read_to_string(site.at("/log")).unwrap();
    assert_eq!(
        log.lines().map(str::trim).collect::<Vec<_>>(),
        ["check", "apply", "check theirs", "check theirs", "apply theirs", "restart theirs", "remove theirs"]
    );
}

#[tokio::test]
async fn a_program_that_describes_itself_otherwise_runs_nothing_else() {
    let site = Site::new();
    let description = json!({ "summary": "x", "schema": { "b": 1, "a": [1.5] } });
    let program = format!(
        "#!/bin/sh\n[ $GROUNDPLAN_REQUEST = schema ] && {{ echo '{{\"schema\":{{\"a\":[1.5],\"b\":1}},\"summary\":\"x\"}}'; exit; }}\n{}",
        &KEEP[10..]
    );
    let spec = |description: &Value| {
        let params = json!({ "path": "/kept", "text": "one" });
        plugin(&program, json!({ "params": params, "description": Digest::of_json(description) }))
    };
    let error = site.create(&spec(&json!({ "summary": "x", "schema": {} }))).await.unwrap_err();
    assert!(error.contains("describes itself otherwise") && error.contains("groundplan plugin schema keep"), "{error}");
    assert!(!site.at("/log").exists() && !site.at("/kept").exists());
    assert_eq!(site.create(&spec(&description)).await, CHANGED);
    assert_eq!(fs::read_to_string(site.at("/kept")).unwrap(), "one");
    // One that does not print any, as of a release before, is run only where no description is named.
    let spec = plugin(KEEP, json!({ "description": Digest::of_json(&description) }));
    let error = site.job("svc.other", apply(&spec, None), None).await.result.unwrap_err();
    assert!(error.contains("describes itself otherwise"), "{error}");
}

#[tokio::test]
async fn when_claims_move_the_old_program_removes_the_old_place_first() {
    let site = Site::new();
    let one = keep("one");
    assert_eq!(site.create(&one).await, CHANGED);
    let edited = format!("{KEEP}# edited\n");
    let moved = json!({ "params": { "path": "/moved", "text": "two" }, "claims": [{ "path": "/moved" }] });
    let two = plugin(&edited, moved);
    assert_eq!(site.update(&recorded(&one), &two).await, CHANGED);
    assert!(!site.at("/kept").exists() && site.at("/moved").exists());
    assert_eq!(site.remove(&recorded(&two)).await, CHANGED);
    assert!(!site.at("/moved").exists(), "the memory of the old place is not used for the new one");
}

#[tokio::test]
async fn a_program_is_kept_while_it_may_be_needed() {
    let site = Site::new();
    let (spec, later) = (keep("one"), |task: &str, work| Job { plan: Generation(2), ..job(task, work, None, None) });
    assert_eq!(site.create(&spec).await, CHANGED);
    assert_eq!(site.job("svc.other", apply(&spec, None), None).await.result, UNCHANGED);
    site.remove(&recorded(&spec)).await.unwrap();
    site.host.run(later("svc.x", apply(&command("true"), None)), Cancel::never()).await;
    assert_eq!(programs(&site), 1, "the other task needs it");
    site.job("svc.other", Work::Remove { spec: recorded(&spec) }, None).await.result.unwrap();
    assert_eq!(programs(&site), 1, "the removal may not be in the ledger yet");
    assert_eq!(site.remove(&recorded(&spec)).await, CHANGED, "it may have to be removed again");
    site.host.run(later("svc.x", apply(&command("true"), None)), Cancel::never()).await;
    assert_eq!(programs(&site), 0);

    // If it is missing nevertheless, the message says what to do; new content restores it, also over a damaged copy.
    let error = site.remove(&recorded(&spec)).await.unwrap_err();
    assert!(
        error.starts_with("the plugin `keep`: its program is missing from") && error.contains("recheck"),
        "{error}"
    );
    assert_eq!(site.create(&spec).await, CHANGED);
    let file = fs::read_dir(site.state("plugins")).unwrap().next().unwrap().unwrap().path();
    fs::write(&file, "#!/bin/sh\nexit 0\n").unwrap();
    assert!(site.trigger(&recorded(&spec), Effect::Restart).await.unwrap_err().contains("is missing"));
    assert_eq!(site.create(&spec).await, UNCHANGED);

    // Programs that no task uses are deleted when the agent starts.
    let site = site.after_a_crash();
    fs::write(site.state("plugins/leftover.part"), "x").unwrap();
    site.host.adopt(&[(id("svc.task"), spec.params.clone())]).await;
    assert_eq!(programs(&site), 1);
    site.after_a_crash().host.adopt(&[]).await;
    assert!(!file.exists());
}

#[tokio::test]
async fn gets_the_request_as_json_and_as_variables() {
    let site = Site::new();
    let program = "#!/bin/sh\ncat > \"$GROUNDPLAN_ROOT/stdin\"\nenv | grep ^GROUNDPLAN_ | sort > \"$GROUNDPLAN_ROOT/env\"\npwd > \"$GROUNDPLAN_ROOT/pwd\"\necho '{\"so\":true}'\n";
    let params = json!({ "a-b": "x y", "n": 5, "yes": true, "list": [1], "table": { "k": 1 }, "none": null, "long": "x".repeat(40_000) });
    let spec = plugin(program, json!({ "params": params }));
    let job = Job { memory: Some(json!({ "k": [1] })), ..job("svc.task", apply(&spec, None), None, None) };
    assert_eq!(site.host.run(job, Cancel::never()).await.result, UNCHANGED);
    let stdin: Value = serde_json::from_slice(&fs::read(site.at("/stdin")).unwrap()).unwrap();
    let root = site.at("/").canonicalize().unwrap();
    assert_eq!(
        stdin,
        json!({
            "version": 1, "request": "check", "params": params,
            "context": { "site": "lab", "node": "n0", "root": root, "task": "svc.task", "memory": { "k": [1] } }
        })
    );
    let env = fs::read_to_string(site.at("/env")).unwrap();
    let names: Vec<_> = env.lines().map(|line| line.split('=').next().unwrap()).collect();
    assert_eq!(
        names,
        [
            "GROUNDPLAN_NODE",
            "GROUNDPLAN_PARAM_A_B",
            "GROUNDPLAN_PARAM_N",
            "GROUNDPLAN_PARAM_YES",
            "GROUNDPLAN_REQUEST",
            "GROUNDPLAN_ROOT",
            "GROUNDPLAN_SITE",
            "GROUNDPLAN_TASK"
        ]
    );
    assert!(env.contains("GROUNDPLAN_PARAM_A_B=x y\n") && env.contains("GROUNDPLAN_PARAM_YES=true\n"), "{env}");
    assert_eq!(fs::read_to_string(site.at("/pwd")).unwrap().trim(), root.to_str().unwrap());
}

#[tokio::test]
async fn each_failure_has_its_own_message() {
    let site = Site::new();
    let failure = async |body: &str, more: Value| {
        let spec = plugin(&format!("#!/bin/sh\n{body}\n"), more);
        site.create(&spec).await.unwrap_err()
    };
    let none = json!({});
    let crash = failure("echo first >&2; echo last words >&2; exit 7", none.clone()).await;
    assert_eq!(crash, "the plugin `keep` exited with 7 at `check`: first\nlast words");
    let killed = failure("kill -SEGV $$", none.clone()).await;
    assert_eq!(killed, "the plugin `keep` was killed by SIGSEGV at `check`");
    let answered = failure("echo '{\"error\":\"no such zone\"}'", none.clone()).await;
    assert_eq!(answered, "the plugin `keep`: no such zone");
    let both = failure("echo '{\"error\":\"no such zone\"}'; exit 1", none.clone()).await;
    assert_eq!(both, "the plugin `keep` exited with 1 at `check`: no such zone");
    let garbage = failure("echo; echo All is well.", none.clone()).await;
    assert_eq!(
        garbage,
        "the plugin `keep` answered `check` with something that is not JSON: `All is well.`; only its answer may go to standard output"
    );
    assert!(failure("printf '\\377'", none.clone()).await.ends_with("it is not UTF-8 text"));
    for (answer, words) in [
        ("[]", "it is not an object"),
        ("{}", "`so` is missing: true or false"),
        ("{\"so\":1}", "`so` must be true or false"),
        ("{\"so\":true,\"sow\":1}", "`sow` is not known here; it may have so, differences, output"),
        ("{\"so\":true,\"output\":1}", "`output` is not a text"),
    ] {
        let error = failure(&format!("echo '{answer}'"), none.clone()).await;
        assert_eq!(error, format!("the plugin `keep` answered `check` wrongly: {words}"));
    }
    let large = failure(
        "printf '{\"changed\":true,\"memory\":\"%s\"}' $(head -c 70000 /dev/zero | tr '\\0' x)",
        json!({ "can_check": false }),
    )
    .await;
    assert!(large.ends_with("`memory` has more than 64 KiB"), "{large}");
    let endless = failure("while :; do echo yes; done", none.clone()).await;
    assert_eq!(endless, "the plugin `keep` printed more than 1 MiB at `check`, and was ended");
    let silent = failure("yes >&2 & echo $! > \"$GROUNDPLAN_ROOT/pid\"; sleep 600", json!({ "timeout": "1s" })).await;
    assert_eq!(
        silent,
        "the plugin `keep` did not finish `check` within 1s and was ended; raise `timeout` in its description if it needs longer"
    );
    let pid = fs::read_to_string(site.at("/pid")).unwrap().trim().parse().unwrap();
    until(|| !lives(pid)).await;
    let missing = site.create(&plugin("#!/nowhere/python3\n", none.clone())).await.unwrap_err();
    assert!(
        missing.contains("cannot be started: No such file")
            && missing.contains("names `/nowhere/python3`, which a task before this one must install"),
        "{missing}"
    );
    let unknown = site.create(&plugin("\0\0\0", none)).await.unwrap_err();
    assert!(unknown.starts_with("the plugin `keep` cannot be started: Exec format error"), "{unknown}");
}

#[tokio::test]
async fn a_plugin_that_cannot_check_reports_whether_it_changed_anything() {
    let site = Site::new();
    let spec = |changed: bool| {
        let program = format!("#!/bin/sh\necho run >> $GROUNDPLAN_ROOT/runs\necho '{{\"changed\":{changed}}}'\n");
        plugin(&program, json!({ "can_check": false }))
    };
    assert_eq!(site.create(&spec(true)).await, CHANGED);
    assert_eq!(site.create(&spec(false)).await, UNCHANGED, "no trigger fires");
    assert_eq!(fs::read_to_string(site.at("/runs")).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn a_cancelled_plugin_ends_and_a_large_one_is_read_from_a_file() {
    let site = Site::new();
    let program = format!("#!/bin/sh\necho $$ > $GROUNDPLAN_ROOT/pid\nsleep 600\n# {}\n", "x".repeat(100_000));
    let blob = site.dir.path().join("blob");
    fs::write(&blob, &program).unwrap();
    let work = Work::Apply { spec: plugin(&program, json!({})), content: Some(Content::File(blob)), previous: None };
    let canceller = Canceller::new();
    let cancel = canceller.listen();
    let (finished, ()) = tokio::join!(site.host.run(job("svc.task", work, None, None), cancel), async {
        until(|| fs::read_to_string(site.at("/pid")).is_ok_and(|pid| pid.ends_with('\n'))).await;
        canceller.cancel();
    });
    let error = finished.result.unwrap_err();
    assert!(error.contains("was ended, because the agent is stopping"), "{error}");
    assert!(!lives(fs::read_to_string(site.at("/pid")).unwrap().trim().parse().unwrap()));
}

#[tokio::test]
async fn drift_checks_report_the_differences_of_the_plugin() {
    let site = Site::new();
    let program = |answer: &str| format!("#!/bin/sh\necho '{answer}'\n");
    let check = async |answer: &str, more: Value| {
        let spec = plugin(&program(answer), more);
        site.create(&spec).await.unwrap_err();
        site.check(&recorded(&spec)).await
    };
    let differs = r#"{"so":false,"differences":[{"what":"zone","expected":"UTC","found":"CET"},{"what":"hands"}]}"#;
    let CheckResult::Drifted(found) = check(differs, json!({})).await else { panic!("it drifted") };
    let reported: Vec<_> = found.iter().map(|d| (d.what.as_str(), d.expected.as_deref(), d.found.as_deref())).collect();
    assert_eq!(reported, [("zone", Some("UTC"), Some("CET")), ("hands", None, None)]);
    assert_eq!(check(r#"{"so":false}"#, json!({})).await, CheckResult::Drifted(vec![]));
    assert_eq!(check(r#"{"changed":1}"#, json!({ "can_check": false })).await, CheckResult::LeftOut);
    for bad in [r#"{"so":false,"differences":[{"expected":"UTC"}]}"#, r#"{"so":false,"differences":5}"#] {
        let CheckResult::Failed(words) = check(bad, json!({})).await else { panic!("it failed") };
        assert!(
            words.starts_with("the plugin `keep` answered `check` wrongly: `differences` must be a list"),
            "{words}"
        );
    }
}

#[tokio::test]
async fn a_task_that_changes_its_kind_removes_the_plugin_first() {
    let site = Site::new();
    let logs = |name: &str| {
        let line = "echo $GROUNDPLAN_PARAM_NAME $GROUNDPLAN_REQUEST >> $GROUNDPLAN_ROOT/log; echo '{\"changed\":true}'";
        plugin(&format!("#!/bin/sh\n{line}\n"), json!({ "name": name, "params": { "name": name }, "can_check": false }))
    };
    let [one, two] = ["one", "two"].map(logs);
    site.create(&one).await.unwrap();
    site.update(&recorded(&one), &two).await.unwrap();
    assert_eq!(fs::read_to_string(site.at("/log")).unwrap(), "one apply\none remove\ntwo apply\n");
    // The plugin claims a path that the task had as a `file` before.
    let (file, kept) = (file("/kept", "file"), keep("plugin"));
    site.update(&recorded(&two), &file).await.unwrap();
    site.update(&recorded(&file), &kept).await.unwrap();
    assert_eq!(fs::read_to_string(site.at("/kept")).unwrap(), "plugin");
    site.update(&recorded(&kept), &file).await.unwrap();
    assert_eq!(fs::read_to_string(site.at("/kept")).unwrap(), "file");
}
