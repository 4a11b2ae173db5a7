//! What nodes report is data: quoted in shell lines, and within one line elsewhere.

use groundplan_protocol::ids::NodeId;

use super::{check_faults, diagnostics, on_all, resolved, resolved_with, state, tree};
use crate::{knowledge::Knowledge, resolve::Cache};

const UNQUOTED: &str = "what nodes report stands unquoted in a shell line, which runs whatever a node puts there";
const WITHIN: &str = "what nodes report stands within quotes, backquotes, a comment or a here-document of a shell line, where `quote` does not hold";

/// A site whose service has an export `a`, and after it a task with this body.
fn site(task: &str) -> String {
    on_all(&["s"])
        + "=== services/s/service.toml\n[vars]\nport = 80\nplain = 'x'\nlists = ['a', 'b']\nforeign = 'http://{{ facts.hostname }}/'\n"
        + "safe = 'ping {{ facts.hostname | quote }}'\nopen = \"ping '{{ facts.hostname | quote }}\"\ndeep = { url = ['{{ foreign }}'] }\n"
        + "[[task]]\nid = 'a'\nexport = { path = '/x' }\n[[task]]\nid = 'b'\nonce = true\nexport = { path = '/x' }\n[[task]]\nid = 't'\n"
        + task
        + "\n=== services/s/inc\n{{ facts.hostname }}\n=== services/s/x\n{{ x }}\n=== services/s/quoted\n{{ facts.hostname | quote }}\n=== services/s/macros\n"
        + "{% macro m(x) %}{{ x }}{% endmacro %}{% macro q(x) %}{{ x | quote }}{% endmacro %}\n"
}

/// The messages for a task.
fn faults(task: &str) -> Vec<String> {
    let tree = tree(&site(task));
    let (_, faults) = resolved(&tree, &mut Cache::default());
    faults.into_iter().map(|fault| fault.message).collect()
}

fn line(template: &str) -> String {
    format!("command = {{ run = '''{template}''' }}")
}

#[test]
fn a_reported_value_is_quoted_in_a_shell_line() {
    for good in [
        "ping {{ facts.hostname | quote }}",
        "ping {{ exports.s.a[node.name] | default('x') | quote }} {{ plain }}",
        "{% for n, v in exports.s.a | items %}ping {{ n }} {{ v | quote }}; {% endfor %} x {{ 1 | quote }}",
        "head -c {{ facts.memory.total_mib | int }} {{ facts.cpus // 2 }} {{ facts.addresses | length }}",
        "{% if facts.os.id == 'debian' %}apt{% else %}dnf{% endif %} x {{ 'a' if facts.arch else 'b' }} {{ facts.cpus is odd }}",
        "{{ {'debian': 'apt', 'fedora': 'dnf'}[facts.os.id] }} install",
        "{% set h = facts.hostname | quote %}ping {{ h }}",
        "ping {{ facts.addresses | map('quote') | join(' ') }}",
        "{% for a in facts.addresses | map('quote') %}ping {{ a }}; {% endfor %}",
        "ping {{ '--' ~ (facts.hostname | quote) }}",
        "{% set n = namespace(x=1) %}{% for a in facts.addresses %}{% set n.x = loop.index %}{% endfor %}{{ n.x }}",
        "{% macro m(x) %}{{ x | quote }}{% endmacro %}ping {{ m(facts.hostname) }}",
        "{% filter quote %}it's {{ facts.hostname }}{% endfilter %}",
        "{{ safe }}",
        "{{ foreign | quote }} {{ deep.url[0] | quote }}",
        "{% include 'quoted' %}",
        "{% from 'macros' import q %}ping {{ q(facts.hostname) }}",
    ] {
        assert_eq!(faults(&line(good)), Vec::<String>::new(), "{good}");
    }
    for bad in [
        "ping {{ facts.hostname }}",
        "ping {{ exports.s.a['n0'] }}",
        "ping '{{ exports.s.b }}'",
        "ping {{ facts.hostname | upper }}",
        "ping {{ facts.hostname | quote | upper }}",
        "ping {{ (facts.hostname | quote)[1:] }}",
        "{% set h = facts.hostname %}ping {{ h }}",
        "{% set h = [facts.hostname | quote] %}ping {{ h }}",
        "{% set h %}{{ facts.hostname }}{% endset %}ping {{ h | quote }}",
        "{% set h | replace(\"'\", '') %}{{ facts.hostname | quote }}{% endset %}ping {{ h }}",
        "{% set h %}{{ facts.hostname | quote }}{% endset %}ping {{ h | replace(\"'\", '') }}",
        "{% set n = namespace() %}{% set n.x = facts.hostname %}ping {{ n.x }}",
        "{% with x = facts.hostname %}ping {{ x }}{% endwith %}",
        "{% for n, v in exports.s.a | items %}ping {{ v }}{% endfor %}",
        "{% for n in exports.s.b %}{{ n }}{% endfor %}",
        "{% for a in facts.addresses %}{{ loop.previtem }}{% endfor %}",
        "{% for a in [1] %}{{ loop.cycle(facts.arch) }}{% endfor %}",
        "{% for a in ['x'] recursive %}{{ a }}{{ loop(facts.addresses) }}{% endfor %}",
        "{% macro m(x) %}{{ x }}{% endmacro %}ping {{ m(facts.hostname) }}",
        "{% macro m(x) %}{{ x }}{% endmacro %}{% set f = m %}ping {{ f(facts.hostname) }}",
        "{% macro m(x=facts.hostname) %}{{ x }}{% endmacro %}ping {{ m() }}",
        "{% macro m() %}{{ caller(facts.hostname) }}{% endmacro %}{% call(x) m() %}{{ x }}{% endcall %}",
        "{% macro m() %}{{ varargs[0] }}{% endmacro %}ping {{ m(facts.hostname) }}",
        "{{ dict(x=facts.hostname).x }}",
        "{{ 'x' | default(facts.hostname) }} {{ 1 | int(facts.hostname) }}",
        "{{ '%s' | format(facts.hostname) }}",
        "{{ facts.hostname or 'x' }}",
        "{{ facts.hostname * 2 }}",
        "{{ (facts if port else facts).hostname }}",
        "{{ debug() }}",
        "{% filter replace('a', 'b') %}{{ facts.hostname | quote }}{% endfilter %}",
        "{{ foreign }}",
        "{{ deep.url[0] }}",
        "{{ open }}",
        "{% include 'inc' %}",
        "{% macro m(x) %}{% include 'x' %}{% endmacro %}{{ m(facts.hostname) }}",
        "{% set q = x %}{% macro q(y) %}{% endmacro %}{% macro x(z) %}{{ z }}{% endmacro %}{{ q(facts.hostname) }}",
        "{% import 'macros' as m %}ping {{ m.m(facts.hostname) }}",
        "{% from 'macros' import m as f %}ping {{ f(facts.hostname) }}",
        "{% set a = b %}{% set b = c %}{% set c = facts.hostname %}{{ a }}",
    ] {
        assert!(faults(&line(bad)).iter().any(|message| message == UNQUOTED), "{bad}: {:?}", faults(&line(bad)));
    }
    let long: String = (0..40).map(|n| format!("{{% set a{n} = a{} %}}", n + 1)).collect();
    let long = format!("{long}{{% set a40 = facts.hostname %}}{{{{ a0 }}}}");
    assert!(faults(&line(&long)).contains(&UNQUOTED.to_owned()));
}

#[test]
fn quotes_do_not_stand_within_others() {
    for bad in [
        "ping \"{{ facts.hostname | quote }}\"",
        "x=`ping {{ facts.hostname | quote }}`",
        "cat <<EOF\n{{ facts.hostname | quote }}\nEOF\n",
        "ping {% if port %}\"{% endif %}{{ facts.hostname | quote }}",
        "ping \"{% filter quote %}{{ facts.hostname }}{% endfilter %}\"",
        "ping \"{{ safe }}\"",
        "{% macro m(x) %}{{ x | quote }}{% endmacro %}ping \"{{ m(facts.hostname) }}\"",
    ] {
        assert_eq!(faults(&line(bad)), [WITHIN], "{bad}");
    }
}

#[test]
fn every_shell_line_is_one() {
    let bad = "x {{ facts.hostname }}";
    for task in [
        format!("command = {{ run = 'x', unless = '{bad}' }}"),
        format!("command = {{ run = ['sudo', '/bin/sh', '-ec', '{bad}'] }}"),
        format!("process = {{ run = '{bad}' }}"),
        format!("export = {{ command = '{bad}' }}"),
        format!("wait = {{ command = '{bad}' }}"),
        format!("reboot = {{ only_if = '{bad}' }}"),
        format!("cron = {{ schedule = '@daily', run = '{bad}' }}"),
        format!("container = {{ name = 'c', image = 'i:1', command = '{bad}' }}"),
        format!("container = {{ name = 'c', image = 'i:1', health = '{bad}' }}"),
        format!("file = {{ path = '/f', content = 'x', validate = {{ command = '{bad} %s' }} }}"),
        format!("process = {{ run = 'x' }}\nready = {{ command = '{bad}' }}"),
    ] {
        assert_eq!(faults(&task), [UNQUOTED], "{task}");
    }
    for task in [
        "command = { run = ['ping', '{{ facts.hostname }}'], env = { A = '{{ facts.hostname }}' } }",
        "command = { run = ['sh', '-c', 'ping $1', 'sh', '{{ facts.hostname }}'] }",
        "file = { path = '/f', content = 'x {{ facts.hostname }}' }",
        "template = { path = '/f', source = 'inc' }",
    ] {
        assert_eq!(faults(task), Vec::<String>::new(), "{task}");
    }
}

#[test]
fn the_place_of_an_unquoted_value_is_named() {
    check_faults(
        &site("command = { run = 'ping -c 1 {{ facts.hostname }}' }"),
        "services/s/service.toml:18 ‹facts.hostname›: what nodes report stands unquoted in a shell line, which runs whatever a node puts there
  hint: write `{{ … | quote }}`, or give a list of arguments instead of a line",
    );
    check_faults(
        &site("command = { run = '{% include \"inc\" %}' }"),
        "services/s/inc:1 ‹facts.hostname›: what nodes report stands unquoted in a shell line, which runs whatever a node puts there
  hint: write `{{ … | quote }}`, or give a list of arguments instead of a line",
    );
}

/// What a task's content or last argument is on n0, with a fact and an export of this value; else its faults.
fn rendered(task: &str, value: &str) -> Result<String, String> {
    let tree = tree(&site(task));
    let mut knowledge = Knowledge::default();
    for node in ["n0", "n1", "n2"] {
        let node = NodeId::new(node).unwrap();
        let facts = [("hostname".to_owned(), value.into())];
        knowledge.facts.insert(node.clone(), std::sync::Arc::new(facts.into()));
        for export in ["s.a", "s.b"] {
            let by_node = knowledge.exports.entry(export.parse().unwrap()).or_default();
            by_node.insert(node.clone(), value.to_owned());
        }
    }
    let (state, faults) = resolved_with(&tree, &knowledge, &mut Cache::default());
    let state = state.ok_or_else(|| diagnostics(&tree, &faults))?;
    if let Some(pending) = state.graph.tasks.iter().find_map(|task| task.pending.first()) {
        return Err(pending.waits_for[0].to_string());
    }
    let task = state.graph.tasks.iter().find(|task| task.id.task.as_str() == "t").expect("the task");
    Ok(serde_json::to_string(&task.instances[0].resolved.spec).unwrap())
}

#[test]
fn a_reported_value_begins_no_new_line() {
    let content = |text: &str| format!("file = {{ path = '/f', content = '''{text}''' }}");
    for text in [
        "a = {{ facts.hostname }}",
        "{% set x = facts.hostname %}{{ x | upper }}",
        "{{ facts.hostname | quote }}",
        "{{ foreign }}",
        "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(facts.hostname) }}",
        "{% include 'inc' %}",
        "{% filter quote %}{{ facts.hostname }}{% endfilter %}",
    ] {
        assert!(rendered(&content(text), "one").is_ok(), "{text}: {:?}", rendered(&content(text), "one"));
        for value in ["a\nb", "a\rb", "a\u{2028}b", "a\u{1b}[2J"] {
            let error = rendered(&content(text), value).expect_err(text);
            assert!(error.contains("what a node reported has "), "{text}: {error}");
        }
    }
    let error = rendered(&content("x = {{ facts.hostname }}"), "a\nb").unwrap_err();
    let expect = "services/s/service.toml:18 ‹facts.hostname›: what a node reported has a line break in it, which could begin something else here (on node `n0`)
  hint: print each of `… | lines` by itself, or encode it, with `tojson` for example\n";
    assert_eq!(error, expect);
    for (text, shown) in [
        ("{{ facts.hostname | tojson }}", r#"\"a\\nb\""#),
        ("{% for line in facts.hostname | lines %}{{ line }};{% endfor %}", "a;b;"),
    ] {
        let spec = rendered(&content(text), "a\nb").unwrap();
        assert!(spec.contains(shown), "{spec}");
    }
    let ini = "ini = { path = '/f', section = 's', option = 'o', value = '{{ facts.hostname }}' }";
    assert!(rendered(ini, "a\nb").is_err());
    assert!(rendered("template = { path = '/f', source = 'inc' }", "a\nb").is_err());
    assert!(rendered("template = { path = '/f', source = '{{ \"inc\" }}' }", "a\nb").is_err());
    assert!(rendered("command = { run = ['x', '{{ facts.hostname }}'] }", "a\nb").is_ok());
}

#[test]
fn quote_makes_one_word_of_anything() {
    let spec = rendered(&line("ping {{ facts.hostname | quote }}"), "it's $(id); `x`\n\"").unwrap();
    assert!(spec.contains(r#"ping 'it'\\''s $(id); `x`\n\"'"#), "{spec}");
    let error = rendered(&line("ping {{ facts.hostname | quote }}"), "a\0").unwrap_err();
    assert!(error.contains("`quote` cannot quote a NUL"), "{error}");
    let error = rendered(&line("ping {{ lists | quote }}"), "a").unwrap_err();
    assert!(error.contains("`map('quote')`"), "{error}");
    let error = rendered(&line("ping {{ nope | quote }}"), "a").unwrap_err();
    assert!(error.contains("undefined variable `nope`"), "{error}");
}

#[test]
fn an_export_that_does_not_fit_is_no_value() {
    let file = "file = { path = '/f', content = \"{{ exports.s.a['n1'] }}\" }";
    assert!(rendered(file, "one").is_ok());
    let error = rendered(file, "one\ntwo").unwrap_err();
    assert_eq!(
        error,
        "facts and exports that fit on node n0: the value of export s.a from n1 has several lines; `lines = true` allows that"
    );
    state(&site(file));
}
