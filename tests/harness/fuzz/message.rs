//! Fed: the JSON of a message, read as each type of the topic table.
//!
//! Checked: what decodes is encoded to JSON that decodes to an equal value and is encoded the same again; in an envelope, sealed by a trusted
//! key, it arrives as it is, unless its version or site is another; and what can be asked of it does not panic.

use std::fmt::Debug;

use groundplan_protocol::{
    VERSION,
    blob::Want,
    drift::{CheckRequest, DriftReport},
    envelope::{Message, OpenError, SigningKey, open, open_for, seal, seal_for},
    exec::{Exec, ExecOutput, ExecReady},
    ids::SiteName,
    plan::{Gates, NodePlan, PlanBody, PlanOffer},
    presence::{Heartbeat, PlannerPresence, Presence},
    report::{Ack, ReportBatch},
    state::NodeState,
};

macro_rules! each_type {
    ($($message:ident)*) => {
        /// The names of the types.
        pub const TYPES: &[&str] = &[$(stringify!($message)),*];

        /// See the module.
        pub fn check(json: &[u8]) {
            $(decoded::<$message>(json);)*
            if let Ok(plan) = serde_json::from_slice::<NodePlan>(json) {
                plan_is_readable(&plan);
            }
            if let Ok(PlanOffer { body: PlanBody::Inline(text), .. }) = serde_json::from_slice::<PlanOffer>(json)
                && let Ok(plan) = text.parse()
            {
                plan_is_readable(&plan);
            }
        }
    };
}

each_type! {
    PlannerPresence Heartbeat PlanOffer Gates Ack CheckRequest Exec Presence NodeState ReportBatch Want DriftReport ExecOutput ExecReady
}

fn decoded<M: Message + Debug + PartialEq>(json: &[u8]) {
    let Ok(message) = serde_json::from_slice::<M>(json) else { return };
    let encoded = serde_json::to_vec(&message).expect("a message is encoded");
    let again: M = serde_json::from_slice(&encoded)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&encoded)));
    assert_eq!(again, message);
    assert_eq!(serde_json::to_vec(&again).expect("a message is encoded"), encoded);

    let key = SigningKey::from_seed([1; 32]);
    let site = SiteName::new("lab").expect("a name");
    let (trusted, recipient) = ([key.public()], key.decryption());
    let opened = if M::ENCRYPTED {
        let sealed = seal_for(&key, &recipient.public(), &message).expect("a key that can be encrypted to");
        open_for::<M>(&sealed, &trusted, &site, &recipient)
    } else {
        open::<M>(&seal(&key, &message), &trusted, &site)
    };
    match opened {
        Ok(opened) => assert_eq!(opened, message),
        Err(OpenError::Version { found }) => assert_ne!(found, VERSION),
        Err(OpenError::Site(found)) => assert_ne!(found, site),
        Err(error) => panic!("{error}: {message:?}"),
    }
}

/// What an agent asks of a plan before it carries it out.
fn plan_is_readable(plan: &NodePlan) {
    for task in &plan.tasks {
        let Some(spec) = &task.spec else { continue };
        // Both of the same content: its bytes, and the digest by which it is fetched.
        if let Some(content) = &spec.content
            && let Ok(Some(bytes)) = content.inline()
        {
            let blob = content.name().expect("what is inline has a digest");
            assert_eq!(blob.size, bytes.len() as u64);
        }
        let _ = spec.params.problems();
        let (identity, contends) = (spec.identity(&task.task), spec.contends(&task.task));
        assert!(contends.iter().all(|key| !identity.contains(key)), "{identity:?} {contends:?}");
    }
    assert!(plan.blobs().count() <= plan.tasks.len());
}
