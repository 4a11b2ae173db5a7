use super::*;

/// A task that does nothing much.
fn task(id: &str, rest: &str) -> String {
    format!("[[task]]\nid = \"{id}\"\ncommand = {{ run = \"true\" }}\n{rest}\n")
}

fn service(name: &str, head: &str, tasks: &[(&str, &str)]) -> String {
    let tasks: String = tasks.iter().map(|(id, rest)| task(id, rest)).collect();
    format!("=== services/{name}/service.toml\n[service]\n{head}\n{tasks}")
}

/// Services by name, each with the rest of its head and its tasks.
type Services<'s> = &'s [(&'s str, &'s str, Tasks<'s>)];

/// Tasks by name, each with the rest of it.
type Tasks<'s> = &'s [(&'s str, &'s str)];

fn check(services: Services<'_>, expect: &str) {
    let names: Vec<_> = services.iter().map(|(name, ..)| *name).collect();
    let files: String = services.iter().map(|(name, head, tasks)| service(name, head, tasks)).collect();
    check_graph(&(on_all(&names) + &files), expect);
}

#[test]
fn tasks_run_in_file_order_unless_they_say_what_they_require() {
    check(
        &[("a", "", &[("z", ""), ("y", ""), ("x", "requires = []"), ("w", "requires = [\"z\"]")])],
        "
a.x on n0 n1 n2
a.z on n0 n1 n2
a.w on n0 n1 n2; after a.z@.
a.y on n0 n1 n2; after a.z@.
",
    );
}

#[test]
fn triggers_order_as_well_and_the_greatest_effect_stays() {
    check(
        &[(
            "a",
            "",
            &[("x", ""), ("y", "run_on = [\"x\"]"), ("z", "requires = []\nrun_on = [\"x\", \"a.y\", \"x\", \"a.x\"]")],
        )],
        "
a.x on n0 n1 n2
a.y on n0 n1 n2; run a.x@.
a.z on n0 n1 n2; run a.x@.; run a.x; run a.y
",
    );
}

#[test]
fn once_elects_the_first_node_and_is_a_barrier_to_its_service() {
    check(
        &[("a", "", &[("x", ""), ("s", "once = true\nrun_on = [\"x\"]"), ("y", "")])],
        "
a.x on n0 n1 n2
a.s on n0; run a.x@.
a.y on n0 n1 n2; after a.s
",
    );
}

#[test]
fn references_to_other_services_are_barriers() {
    check(
        &[
            ("b", "", &[("x", "requires = [\"a.x\", \"a.y@n1\"]"), ("y", "run_on = [\"cap/y\"]")]),
            ("a", "", &[("x", ""), ("y", "provides = [\"cap/y\"]")]),
        ],
        "
a.x on n0 n1 n2
a.y on n0 n1 n2; after a.x@.
b.x on n0 n1 n2; after a.x; after a.y@n1
b.y on n0 n1 n2; run a.y; after b.x@.
",
    );
}

#[test]
fn what_a_service_requires_orders_all_its_tasks() {
    check(
        &[
            ("a", "requires = [\"b.x\", \"cap/y\"]", &[("x", ""), ("y", "requires = []")]),
            ("b", "", &[("x", ""), ("y", "provides = [\"cap/y\"]")]),
        ],
        "
b.x on n0 n1 n2
b.y on n0 n1 n2; after b.x@.
a.x on n0 n1 n2; after b.x; after b.y
a.y on n0 n1 n2; after b.x; after b.y
",
    );
}

#[test]
fn needed_by_is_requires_from_the_other_end() {
    check(
        &[
            ("a", "", &[("x", "needed_by = [\"z\", \"b.x\"]"), ("y", "requires = []"), ("z", "requires = []")]),
            ("b", "", &[("x", "")]),
        ],
        "
a.x on n0 n1 n2
a.y on n0 n1 n2
a.z on n0 n1 n2; after a.x@.
b.x on n0 n1 n2; after a.x
",
    );
}

#[test]
fn a_service_that_runs_nowhere_has_no_instances_and_may_be_named() {
    let text = on_all(&["a"]) + &service("a", "requires = [\"b.x\"]", &[("x", "")]) + &service("b", "", &[("x", "")]);
    check_graph(&text, "b.x on \na.x on n0 n1 n2; after b.x");
}

#[test]
fn a_service_of_several_groups_runs_once_on_a_node() {
    let text = "=== site.toml\nname = \"test\"\n=== inventory/nodes.toml
[nodes.n0]\ngroups = [\"g\", \"h\"]\n[nodes.n1]\ngroups = [\"h\"]\n[nodes.n2]
[groups.g]\nservices = [\"a\"]\n[groups.h]\nservices = [\"a\"]\n"
        .to_owned();
    check_graph(
        &(text + &service("a", "", &[("x", ""), ("y", "once = true")])),
        "a.x on n0 n1\na.y on n0; after a.x@.",
    );
}

#[test]
fn rolling_limits_come_from_the_service_or_the_site() {
    let site = on_all(&["a", "b"]).replace("name = \"test\"\n", "name = \"test\"\n[rollout]\nmax_unavailable = 2\n");
    let limit = "[rollout]\nmax_unavailable = 1\n";
    let state = state(&(site + &service("a", "", &[("x", "")]) + limit + &service("b", "", &[("x", "")])));
    let limits: Vec<_> = state.rollouts.iter().map(|(id, r)| format!("{id} {:?}", r.max_unavailable)).collect();
    assert_eq!(limits, ["a Some(1)", "b Some(2)"]);
}
