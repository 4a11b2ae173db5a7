//! Kinds that the site's own programs carry out, on this machine.

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

/// As the ledger has it.
fn recorded(spec: &TaskSpec) -> TaskSpec {
    TaskSpec { content: None, ..spec.clone() }
}

fn programs(site: &Site) -> usize {
    fs::read_dir(site.state("plugins")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn it_is_applied_checked_acted_on_and_removed_by_its_program() {
    let site = Site::new();
    fs::write(site.at("/kept"), "theirs").unwrap();
    let (one, two) = (keep("one"), keep("two"));
    let job = site.job("svc.task", apply(&one, None), None).await;
    assert_eq!((job.result, job.output.unwrap().head), (CHANGED, "it was theirs\n".to_owned()));
    assert_eq!(site.create(&one).await, UNCHANGED);
    assert_eq!(site.update(&recorded(&one), &two).await, CHANGED);
    assert_eq!(fs::read_to_string(site.at("/kept")).unwrap(), "two");
    // What has no content finds the program by its digest, also in another life of the agent.
    let site = site.after_a_crash();
    let applied = [(id("svc.task"), two.params.clone())];
    site.host.adopt(&applied).await;
    assert_eq!(site.trigger(&recorded(&two), Effect::Restart).await, effected(Effect::Restart));
    assert_eq!(site.remove(&recorded(&two)).await, CHANGED);
    assert_eq!(fs::read_to_string(site.at("/kept")).unwrap(), "theirs", "what it noted first came back");
    let log = fs::read_to_string(site.at("/log")).unwrap();
    assert_eq!(
        log.lines().map(str::trim).collect::<Vec<_>>(),
        ["check", "apply", "check theirs", "check theirs", "apply theirs", "restart theirs", "remove theirs"]
    );
}

#[tokio::test]
async fn what_it_claims_elsewhere_is_removed_first_and_by_the_program_that_made_it() {
    let site = Site::new();
    let one = keep("one");
    assert_eq!(site.create(&one).await, CHANGED);
    let edited = format!("{KEEP}# edited\n");
    let moved = json!({ "params": { "path": "/moved", "text": "two" }, "claims": [{ "path": "/moved" }] });
    let two = plugin(&edited, moved);
    assert_eq!(site.update(&recorded(&one), &two).await, CHANGED);
    assert!(!site.at("/kept").exists() && site.at("/moved").exists());
    assert_eq!(site.remove(&recorded(&two)).await, CHANGED);
    assert!(!site.at("/moved").exists(), "what was noted of the old place is not taken for the new one's");
}

#[tokio::test]
async fn its_program_is_kept_for_as_long_as_it_may_be_needed() {
    let site = Site::new();
    let (spec, later) = (keep("one"), |task: &str, work| Job { plan: Generation(2), ..job(task, work, None, None) });
    assert_eq!(site.create(&spec).await, CHANGED);
    assert_eq!(site.job("svc.other", apply(&spec, None), None).await.result, UNCHANGED);
    site.remove(&recorded(&spec)).await.unwrap();
    site.host.run(later("svc.x", apply(&command("true"), None)), Cancel::never()).await;
    assert_eq!(programs(&site), 1, "the other task needs it");
    site.job("svc.other", Work::Remove { spec: recorded(&spec) }, None).await.result.unwrap();
    assert_eq!(programs(&site), 1, "that it is removed may not be in the ledger yet");
    assert_eq!(site.remove(&recorded(&spec)).await, CHANGED, "so it may have to be removed again");
    site.host.run(later("svc.x", apply(&command("true"), None)), Cancel::never()).await;
    assert_eq!(programs(&site), 0);

    // Where it is gone nevertheless, the word says what to do; content brings it back, also in place of one that is not whole.
    let told = site.remove(&recorded(&spec)).await.unwrap_err();
    assert!(told.starts_with("the plugin `keep`: its program is missing from") && told.contains("recheck"), "{told}");
    assert_eq!(site.create(&spec).await, CHANGED);
    let file = fs::read_dir(site.state("plugins")).unwrap().next().unwrap().unwrap().path();
    fs::write(&file, "#!/bin/sh\nexit 0\n").unwrap();
    assert!(site.trigger(&recorded(&spec), Effect::Restart).await.unwrap_err().contains("is missing"));
    assert_eq!(site.create(&spec).await, UNCHANGED);

    // What nobody has is swept when the agent starts.
    let site = site.after_a_crash();
    fs::write(site.state("plugins/leftover.part"), "x").unwrap();
    site.host.adopt(&[(id("svc.task"), spec.params.clone())]).await;
    assert_eq!(programs(&site), 1);
    site.after_a_crash().host.adopt(&[]).await;
    assert!(!file.exists());
}

#[tokio::test]
async fn it_gets_json_and_plain_variables() {
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
async fn each_way_to_fail_has_its_word() {
    let site = Site::new();
    let told = async |body: &str, more: Value| {
        let spec = plugin(&format!("#!/bin/sh\n{body}\n"), more);
        site.create(&spec).await.unwrap_err()
    };
    let none = json!({});
    let crash = told("echo first >&2; echo last words >&2; exit 7", none.clone()).await;
    assert_eq!(crash, "the plugin `keep` exited with 7 at `check`: first\nlast words");
    let killed = told("kill -SEGV $$", none.clone()).await;
    assert_eq!(killed, "the plugin `keep` was killed by SIGSEGV at `check`");
    let said = told("echo '{\"error\":\"no such zone\"}'", none.clone()).await;
    assert_eq!(said, "the plugin `keep`: no such zone");
    let both = told("echo '{\"error\":\"no such zone\"}'; exit 1", none.clone()).await;
    assert_eq!(both, "the plugin `keep` exited with 1 at `check`: no such zone");
    let garbage = told("echo; echo All is well.", none.clone()).await;
    assert_eq!(
        garbage,
        "the plugin `keep` answered `check` with what is no JSON: `All is well.`; only its answer goes to standard output"
    );
    assert!(told("printf '\\377'", none.clone()).await.ends_with("it is no UTF-8 text"));
    for (answer, words) in [
        ("[]", "it is no object"),
        ("{}", "`so` is missing: true or false"),
        ("{\"so\":1}", "`so` must be true or false"),
        ("{\"so\":true,\"sow\":1}", "`sow` is not known here; it may have so, differences, output"),
        ("{\"so\":true,\"output\":1}", "`output` is no text"),
    ] {
        let told = told(&format!("echo '{answer}'"), none.clone()).await;
        assert_eq!(told, format!("the plugin `keep` answered `check` wrongly: {words}"));
    }
    let large = told(
        "printf '{\"changed\":true,\"memory\":\"%s\"}' $(head -c 70000 /dev/zero | tr '\\0' x)",
        json!({ "can_check": false }),
    )
    .await;
    assert!(large.ends_with("`memory` has more than 64 KiB"), "{large}");
    let endless = told("while :; do echo yes; done", none.clone()).await;
    assert_eq!(endless, "the plugin `keep` printed more than 1 MiB at `check`, and was ended");
    let silent = told("yes >&2 & echo $! > \"$GROUNDPLAN_ROOT/pid\"; sleep 600", json!({ "timeout": "1s" })).await;
    assert_eq!(
        silent,
        "the plugin `keep` did not end its `check` within 1s, and was ended; `timeout` in its description gives it longer"
    );
    let pid = fs::read_to_string(site.at("/pid")).unwrap().trim().parse().unwrap();
    until(|| !lives(pid)).await;
    let missing = site.create(&plugin("#!/nowhere/python3\n", none.clone())).await.unwrap_err();
    assert!(
        missing.contains("cannot be started: No such file")
            && missing.contains("names `/nowhere/python3`, which is to be"),
        "{missing}"
    );
    let unknown = site.create(&plugin("\0\0\0", none)).await.unwrap_err();
    assert!(unknown.starts_with("the plugin `keep` cannot be started: Exec format error"), "{unknown}");
}

#[tokio::test]
async fn what_cannot_check_itself_says_whether_it_changed_anything() {
    let site = Site::new();
    let spec = |changed: bool| {
        let program = format!("#!/bin/sh\necho run >> $GROUNDPLAN_ROOT/runs\necho '{{\"changed\":{changed}}}'\n");
        plugin(&program, json!({ "can_check": false }))
    };
    assert_eq!(site.create(&spec(true)).await, CHANGED);
    assert_eq!(site.create(&spec(false)).await, UNCHANGED, "so no trigger fires");
    assert_eq!(fs::read_to_string(site.at("/runs")).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn a_cancelled_one_ends_and_a_large_one_comes_as_a_file() {
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
    assert!(error.contains("was ended, because the agent stops"), "{error}");
    assert!(!lives(fs::read_to_string(site.at("/pid")).unwrap().trim().parse().unwrap()));
}

#[tokio::test]
async fn a_look_tells_what_it_says_that_differs() {
    let site = Site::new();
    let program = |answer: &str| format!("#!/bin/sh\necho '{answer}'\n");
    let look = async |answer: &str, more: Value| {
        let spec = plugin(&program(answer), more);
        site.create(&spec).await.unwrap_err();
        site.look(&recorded(&spec)).await
    };
    let differs =
        r#"{"in_sync":false,"differences":[{"what":"zone","expected":"UTC","found":"CET"},{"what":"hands"}]}"#;
    let CheckResult::Drifted(found) = look(differs, json!({})).await else { panic!("it drifted") };
    let said: Vec<_> = found.iter().map(|d| (d.what.as_str(), d.expected.as_deref(), d.found.as_deref())).collect();
    assert_eq!(said, [("zone", Some("UTC"), Some("CET")), ("hands", None, None)]);
    assert_eq!(look(r#"{"in_sync":false}"#, json!({})).await, CheckResult::Drifted(vec![]));
    assert_eq!(look(r#"{"changed":1}"#, json!({ "can_check": false })).await, CheckResult::LeftOut);
    for bad in [r#"{"in_sync":false,"differences":[{"expected":"UTC"}]}"#, r#"{"in_sync":false,"differences":5}"#] {
        let CheckResult::Failed(words) = look(bad, json!({})).await else { panic!("it failed") };
        assert!(
            words.starts_with("the plugin `keep` answered `check` wrongly: `differences` must be a list"),
            "{words}"
        );
    }
}

#[tokio::test]
async fn another_kind_in_its_place_has_it_removed_first() {
    let site = Site::new();
    let logs = |name: &str| {
        let line = "echo $GROUNDPLAN_PARAM_NAME $GROUNDPLAN_REQUEST >> $GROUNDPLAN_ROOT/log; echo '{\"changed\":true}'";
        plugin(&format!("#!/bin/sh\n{line}\n"), json!({ "name": name, "params": { "name": name }, "can_check": false }))
    };
    let [one, two] = ["one", "two"].map(logs);
    site.create(&one).await.unwrap();
    site.update(&recorded(&one), &two).await.unwrap();
    assert_eq!(fs::read_to_string(site.at("/log")).unwrap(), "one apply\none remove\ntwo apply\n");
    // What it claims is a path, and the task was a file there before.
    let (file, kept) = (file("/kept", "file"), keep("plugin"));
    site.update(&recorded(&two), &file).await.unwrap();
    site.update(&recorded(&file), &kept).await.unwrap();
    assert_eq!(fs::read_to_string(site.at("/kept")).unwrap(), "plugin");
    site.update(&recorded(&kept), &file).await.unwrap();
    assert_eq!(fs::read_to_string(site.at("/kept")).unwrap(), "file");
}
