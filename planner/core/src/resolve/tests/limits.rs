//! Templates that would not end, fill the memory or overflow the stack: each is a fault at its line, found quickly.

use std::fmt::Write as _;

use super::{diagnostics, resolved, state, tree};
use crate::resolve::Cache;

/// A site whose one service ships a template, on `nodes` nodes.
fn site(settings: &str, nodes: usize, template: &str) -> String {
    let nodes = (0..nodes).fold(String::new(), |mut all, n| {
        writeln!(all, "[nodes.n{n}]\nvars.number = {n}").unwrap();
        all
    });
    format!(
        "=== site.toml\nname = \"test\"\n{settings}\n=== inventory/all.toml\n{nodes}[groups.all]\nservices = [\"s\"]\n\
         === services/s/service.toml\n[[task]]\nid = \"t\"\ntemplate = {{ source = \"t\", path = \"/t\" }}\n=== services/s/t\n{template}"
    )
}

/// The faults of such a site.
#[track_caller]
fn faults(settings: &str, nodes: usize, template: &str) -> String {
    let tree = tree(&site(settings, nodes, template));
    let (state, faults) = resolved(&tree, &mut Cache::default());
    assert!(state.is_none());
    diagnostics(&tree, &faults)
}

/// The inline content that the template renders to on the first node.
#[track_caller]
fn rendered(template: &str) -> String {
    let state = state(&site("", 1, template));
    let content = super::instance(&state, "s.t@n0").resolved.spec.content.clone().expect("content");
    format!("{content:?}")
}

const STEPS: &str = "rendering this takes too many steps; it may never end";

#[test]
fn a_template_that_does_not_end_is_a_fault_at_its_line() {
    for (line, template) in [
        (
            2,
            "begin\n{% for a in range(100000) %}{% for b in range(100000) %}{% if a > b %}{% endif %}{% endfor %}{% endfor %}",
        ),
        (
            3,
            "{% set ns = namespace(s='xxxxxxxx') %}\n{% for i in range(60) %}\n{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s|length }}",
        ),
        (
            1,
            "{{ ('x' * 99999999)|upper|length + ('x' * 99999999)|upper|length + ('x' * 99999999)|upper|length + ('x' * 99999999)|upper|length }}",
        ),
    ] {
        let found = faults("", 1, template);
        assert!(found.contains(STEPS), "{found}");
        assert!(found.starts_with(&format!("services/s/t:{line} ‹")), "{found}");
    }
}

#[test]
fn a_template_that_exceeds_a_limit_is_rendered_for_one_node_only() {
    let template = "{{ number }}{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    let found = faults("", 500, template);
    assert_eq!(found.matches(STEPS).count(), 1, "{found}");
}

#[test]
fn output_has_a_limit_that_a_site_may_raise() {
    let raw = "a\nb {% for a in range(6) %}{% for b in range(100000) %}\n0123456789{% endfor %}{% endfor %}";
    let found = faults("", 1, raw);
    assert!(found.starts_with("services/s/t:2 ‹"), "{found}");
    assert!(found.contains("the template renders to more than 4 MiB"), "{found}");
    let expressions =
        "a\nb {% for a in range(6) %}\n{% for b in range(100000) %}{{ '0123456789' }}{% endfor %}{% endfor %}";
    let found = faults("", 1, expressions);
    assert!(found.starts_with("services/s/t:3 ‹"), "{found}");
    assert!(found.contains("raise `max_rendered_mib` in site.toml"), "{found}");
    let tree = tree(&site("max_rendered_mib = 8", 1, raw));
    let (state, faults) = resolved(&tree, &mut Cache::default());
    assert!(state.is_some(), "{}", diagnostics(&tree, &faults));
}

#[test]
fn a_limit_that_is_lowered_holds_for_what_was_rendered_before() {
    let raw = "{% for a in range(6) %}{% for b in range(100000) %}\n0123456789{% endfor %}{% endfor %}";
    let mut cache = Cache::default();
    for (settings, fits) in [("max_rendered_mib = 8", true), ("", false), ("max_rendered_mib = 8", true)] {
        let (state, _) = resolved(&tree(&site(settings, 1, raw)), &mut cache);
        assert_eq!(state.is_some(), fits, "{settings}");
    }
}

#[test]
fn deep_texts_are_refused_before_they_are_parsed() {
    let branches = format!("a\n{{% if false %}}{}{{% endif %}}", "{% elif false %}a".repeat(20_000));
    let sums = format!("a\n{{{{ 1{} }}}}", " + node.name|length".repeat(20_000));
    for template in [branches, sums] {
        let found = faults("", 1, &template);
        assert!(found.starts_with("services/s/t:2 ‹"), "{}", &found[..200]);
        assert!(found.contains("this nests too deeply"), "{}", &found[..200]);
    }
    for nodes in [0, 1] {
        let site =
            site("", nodes, "").replace("id = \"t\"", &format!("id = \"t\"\nwhen = \"{}true\"", "not ".repeat(10_000)));
        let tree = tree(&site);
        let (_, faults) = resolved(&tree, &mut Cache::default());
        let found = diagnostics(&tree, &faults);
        assert!(found.starts_with("services/s/service.toml:3 ‹"), "{}", &found[..200]);
        assert!(found.contains("this nests too deeply"), "{}", &found[..200]);
    }
}

#[test]
fn values_do_not_nest_without_end() {
    let kept = "cannot be kept in a list, a table or a namespace";
    let deep = "nests more than 100 levels deep";
    for (template, words) in [
        (
            "{% set ns = namespace(s=[]) %}{% for i in range(100000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s }}",
            deep,
        ),
        ("{% set ns = namespace(s=[]) %}{% for i in range(9999) %}{% set ns.s = {'a': ns.s} %}{% endfor %}", deep),
        ("{% set ns = namespace(s=[1]) %}{% for i in range(9999) %}{% set ns.s = ns.s|batch(1) %}{% endfor %}", deep),
        ("{% set ns = namespace() %}{% set ns.s = ns %}{{ ns }}", kept),
        ("{% set ns = namespace() %}{% set ns.s = [ns] %}{{ ns }}", kept),
        ("{% set ns = namespace() %}{% set t = {'a': ns} %}{% set ns.s = t %}", kept),
        ("{% set ns = namespace() %}{% set ns.s = namespace(x=ns) %}", kept),
        ("{% set ns = namespace() %}{% set ns = namespace(x=ns) %}", kept),
        ("{% set ns = namespace() %}{% macro f() %}{{ ns.s }}{% endmacro %}{% set ns.s = f %}", kept),
        ("{% set ns = namespace() %}{% for i in [1] %}{% set ns.s = loop %}{% endfor %}", kept),
    ] {
        let found = faults("", 1, template);
        assert!(found.contains(words), "{template}\n{found}");
        assert!(found.starts_with("services/s/t:1 ‹"), "{found}");
    }
}

#[test]
fn what_templates_usually_keep_stays_as_it_is() {
    let template = "{% set ns = namespace(n=0, list=[], found=false) %}\
        {% for i in range(300) %}{% set ns.n = ns.n + 1 %}{% set ns.list = ns.list + [{'i': i}] %}{% endfor %}\
        {% set outer = namespace(a=1) %}{% set same = outer %}{% set same.a = 2 %}\
        {% for x in ['p', 'q'] %}{% set up = loop %}{% for y in [1] %}{{ up.index }}{% endfor %}{% endfor %}\
        {% set t = (1, 2) %}{% set a, b = t %}{% set c = 'x' if false %}{% set r = range(3) %}{% set g = groups %}\
        {% set block %}text{% endset %}{% set m = ns.list|map(attribute='i')|list %}\
        {{ ns.n }} {{ ns.list|length }} {{ m[299] }} {{ outer.a }} {{ t }} {{ b }} {{ c is defined }} {{ r }} {{ g.all|length }} {{ block }}";
    assert!(rendered(template).contains("12300 300 299 2 (1, 2) 2 False [0, 1, 2] 1 text"), "{}", rendered(template));
    // A name that is undefined stays so, and its fault has its own place.
    let found = faults("", 1, "{% set ns = namespace() %}{% set ns.a = 1 %}\n{% set ns.b = nuber %}{{ ns.b }}");
    assert_eq!(found.lines().next(), Some("services/s/t:2 ‹nuber›: undefined variable `nuber`"), "{found}");
}
