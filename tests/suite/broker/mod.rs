//! The broker conformance suite: what groundplan needs of an MQTT 3.1.1 broker.
//!
//! Each test of [`both!`] runs against the embedded broker and against Mosquitto, so that neither the tests nor the
//! broker follow an interpretation of their own. Features of the embedded broker alone (policy, names of certificates, caps)
//! are tested in `embedded` and `tls`.

mod churn;
mod embedded;
mod limits;
mod retained;
mod sessions;
mod tls;
mod wills;
pub(crate) mod wire;

/// Makes of each function a module with two tests: one for each broker.
macro_rules! both {
    ($($(#[doc = $doc:literal])* async fn $name:ident($broker:ident: TestBroker) $body:block)+) => {
        $(mod $name {
            use super::*;

            $(#[doc = $doc])*
            async fn check($broker: TestBroker) $body

            #[tokio::test]
            async fn embedded() {
                check(TestBroker::start_with(Kind::Embedded, super::options())).await;
            }

            #[tokio::test]
            async fn mosquitto() {
                check(TestBroker::start_with(Kind::Mosquitto, super::options())).await;
            }
        })+
    };
}
use both;
