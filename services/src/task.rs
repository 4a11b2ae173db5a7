//! A task as it is written: the fields of all tasks, and beside them one key that names the kind and holds its parameters.
//!
//! The kinds are those of the registry in `groundplan_protocol::kinds`; nothing here lists them.

use std::{fmt, sync::LazyLock};

use groundplan_inventory::decode::{At, Cause, DecodeError};
use groundplan_protocol::{
    ids::TaskName,
    kinds::{self, Plugin, TaskParams},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
        value::{MapAccessDeserializer, MapDeserializer, StrDeserializer, StringDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Map, Value, json};

use crate::task_fields::TaskFields;

/// A task, before its keys are checked against each other.
#[derive(Debug, Clone)]
pub struct TaskManifest {
    /// What tasks of all kinds have.
    pub fields: TaskFields,
    /// Its kinds, by place of the key; a valid task has one.
    pub kinds: Vec<At<TaskParams>>,
    /// Unknown keys with a table, as the kind of a plugin has: whether there is such a plugin is not known here.
    pub strays: Vec<At<Plugin>>,
}

/// All keys that a task may have.
pub(crate) static KEYS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    // serde reports the known keys with an unknown one: so the list is never another than that of the type.
    let nothing = MapDeserializer::<_, DecodeError>::new([("", 0_u8)].into_iter());
    let fields = match TaskFields::deserialize(nothing) {
        Err(DecodeError { cause: Cause::UnknownField { expected, .. }, .. }) => expected,
        _ => &[],
    };
    fields.iter().chain(kinds::NAMES).copied().collect()
});

impl<'de> Deserialize<'de> for TaskManifest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(TaskVisitor)
    }
}

struct TaskVisitor;

impl<'de> Visitor<'de> for TaskVisitor {
    type Value = TaskManifest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TaskManifest, A::Error> {
        let (mut kinds, mut strays) = (Vec::new(), Vec::new());
        let split = Split { map, kinds: &mut kinds, strays: &mut strays };
        let fields = TaskFields::deserialize(MapAccessDeserializer::new(split))?;
        if kinds.is_empty() && strays.is_empty() {
            let choice = groundplan_inventory::hint::list(kinds::NAMES);
            return Err(A::Error::custom(format!(
                "the task `{}` has no kind: one of {choice}, or a plugin's",
                fields.id.value
            )));
        }
        Ok(TaskManifest { fields, kinds, strays })
    }
}

/// Takes the kinds out of a table and passes on the rest.
struct Split<'k, A> {
    map: A,
    kinds: &'k mut Vec<At<TaskParams>>,
    strays: &'k mut Vec<At<Plugin>>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Split<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<At<String>>()? {
            if let Some(kind) = kinds::NAMES.iter().find(|kind| **kind == key.value) {
                let value = self.map.next_value_seed(Params(kind))?;
                self.kinds.push(At { value, span: key.span });
            } else if KEYS.contains(&key.value.as_str()) {
                return seed.deserialize(StringDeserializer::new(key.value)).map(Some);
            } else {
                let unknown = || A::Error::unknown_field(&key.value, &KEYS);
                let name = TaskName::new(key.value.as_str()).map_err(|_| unknown())?;
                let params = self.map.next_value_seed(Stray)?.ok_or_else(unknown)?;
                self.strays.push(At { value: Plugin::declared(name, params), span: key.span });
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Reads the value of an unknown key; `None` if it is not a table.
struct Stray;

impl<'de> DeserializeSeed<'de> for Stray {
    type Value = Option<Map<String, Value>>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Stray {
    type Value = Option<Map<String, Value>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut params = Map::new();
        while let Some((key, value)) = map.next_entry()? {
            params.insert(key, value);
        }
        Ok(Some(params))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Reads the parameters of a kind, as `TaskParams` reads `{ kind = parameters }`.
struct Params(&'static str);

impl<'de> DeserializeSeed<'de> for Params {
    type Value = TaskParams;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<TaskParams, D::Error> {
        TaskParams::deserialize(Variant { kind: self.0, params: d })
    }
}

struct Variant<D> {
    kind: &'static str,
    params: D,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Variant<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, D: Deserializer<'de>> EnumAccess<'de> for Variant<D> {
    type Error = D::Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), D::Error> {
        let name: StrDeserializer<'_, D::Error> = StrDeserializer::new(self.kind);
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de, D: Deserializer<'de>> VariantAccess<'de> for Variant<D> {
    type Error = D::Error;

    fn unit_variant(self) -> Result<(), D::Error> {
        IgnoredAny::deserialize(self.params).map(|_| ())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, D::Error> {
        seed.deserialize(self.params)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.params.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.params.deserialize_struct("params", fields, visitor)
    }
}

impl JsonSchema for TaskManifest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Task".into()
    }

    /// The fields, the kinds as further properties, and that exactly one of these is there, or else a table of another name:
    /// the kind of a plugin.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = TaskFields::json_schema(generator);
        let kinds = TaskParams::json_schema(generator);
        let variants = kinds.get("oneOf").and_then(Value::as_array).into_iter().flatten();
        let kinds: Map<String, Value> = variants
            .filter_map(|variant| variant.get("properties")?.as_object())
            .flat_map(|properties| properties.iter().map(|(kind, params)| (kind.clone(), params.clone())))
            .filter(|(kind, _)| kinds::NAMES.contains(&kind.as_str()))
            .collect();
        schema
            .insert("description".to_owned(), json!("One declared step or resource. Exactly one key names its kind."));
        let mut one: Vec<_> = kinds.keys().map(|kind| json!({ "required": [kind] })).collect();
        let only_known = json!({ "propertyNames": { "enum": *KEYS } });
        // Beside a kind that is built in, no other key may stand.
        schema.insert("if".to_owned(), json!({ "anyOf": one }));
        schema.insert("then".to_owned(), only_known.clone());
        let other: Vec<_> = one.iter().cloned().chain([only_known]).collect();
        one.push(json!({ "description": "The kind of a plugin of the site, by its name.", "not": { "anyOf": other } }));
        schema.insert("oneOf".to_owned(), Value::Array(one));
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            properties.extend(kinds);
        }
        let plugin =
            json!({ "type": "object", "description": "Parameters of a plugin's kind: what is in `plugins/` adds it." });
        schema.insert("additionalProperties".to_owned(), plugin);
        schema
    }
}
