//! A setting that is `true`, `false`, or a table that says more.

use std::{borrow::Cow, fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// `false`, `true`, or a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toggle<T> {
    /// `false`.
    Off,
    /// `true`: with what is usual.
    On,
    /// On, with what the table says.
    With(T),
}

impl<T> Toggle<T> {
    /// The same with a reference to the table.
    pub fn as_ref(&self) -> Toggle<&T> {
        match self {
            Self::Off => Toggle::Off,
            Self::On => Toggle::On,
            Self::With(table) => Toggle::With(table),
        }
    }

    /// The same with another kind of table.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> Toggle<U> {
        match self {
            Self::Off => Toggle::Off,
            Self::On => Toggle::On,
            Self::With(table) => Toggle::With(with(table)),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Toggle<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Toggle<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false` or a table")
            }

            fn visit_bool<E>(self, on: bool) -> Result<Toggle<T>, E> {
                Ok(if on { Toggle::On } else { Toggle::Off })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Toggle<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Toggle::With)
            }
        }

        d.deserialize_any(Either(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Toggle<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Toggle{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "boolean" }, table] })
    }
}
