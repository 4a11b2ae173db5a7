//! Deserializes a parsed TOML tree into types, without the elements that earlier attempts found faulty.
//!
//! Every error has the range that it belongs to, and the element to leave out so that the rest can be read.

use std::{cell::Cell, collections::BTreeMap, ops::Range};

use serde::{
    Deserializer,
    de::{
        DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
        value::{BorrowedStrDeserializer, UsizeDeserializer},
    },
    forward_to_deserialize_any,
};
use toml::{
    Spanned,
    de::{DeArray, DeString, DeTable, DeValue},
};

use super::{
    at::MARKER,
    error::{Cause, DecodeError, Element, Origin, address as element},
};

/// What to leave out.
#[derive(Debug, Default)]
pub(super) struct Faulty {
    /// The elements left out.
    pub(super) elements: std::collections::BTreeSet<Element>,
    /// By table: keys that it would have without faults that have been reported. Their absence is no fault of its own.
    pub(super) keys: BTreeMap<Element, Vec<String>>,
}

/// A value of the tree, with its range.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    value: &'a DeValue<'a>,
    start: usize,
    end: usize,
    faulty: &'a Faulty,
}

impl<'a> Value<'a> {
    fn new(value: &'a Spanned<DeValue<'a>>, faulty: &'a Faulty) -> Self {
        let Range { start, end } = value.span();
        Self { value: value.get_ref(), start, end, faulty }
    }

    /// The value of the whole document, from which decoding begins.
    pub(super) fn root(root: &'a Spanned<DeValue<'a>>, faulty: &'a Faulty) -> Self {
        Self::new(root, faulty)
    }

    fn unexpected(&self) -> Unexpected<'a> {
        match self.value {
            DeValue::String(s) => Unexpected::Str(s),
            DeValue::Integer(_) => Unexpected::Other("a whole number"),
            DeValue::Float(_) => Unexpected::Other("a number with a fraction"),
            DeValue::Boolean(b) => Unexpected::Bool(*b),
            DeValue::Datetime(_) => Unexpected::Other("a date or time"),
            DeValue::Array(_) => Unexpected::Seq,
            DeValue::Table(_) => Unexpected::Map,
        }
    }

    fn table<V: Visitor<'a>>(self, table: &'a DeTable<'a>, visitor: V) -> Result<V::Value, DecodeError> {
        let access = Table { entries: table.iter(), table, value: None, faulty: self.faulty };
        visitor.visit_map(access).map_err(|error| self.place_in_table(table, error))
    }

    /// Gives an error of the table itself its place: that of an unknown key. A missing key has no place but the table.
    fn place_in_table(&self, table: &'a DeTable<'a>, mut error: DecodeError) -> DecodeError {
        if error.place.is_some() {
            return error;
        }
        let known_faults = self.faulty.keys.get(&element(table));
        if let Cause::UnknownField { name, .. } = &error.cause
            && let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == name)
        {
            error.place = Some(Origin::entry(key.span(), value, table_key(table, key)));
            return error;
        }
        error.quiet |= match (&error.cause, known_faults) {
            // A key that was left out because of its fault would otherwise be reported twice, as faulty and as missing.
            (Cause::MissingField(field), Some(keys)) => keys.iter().any(|key| key == field),
            // A check across several keys may fail only because one of them was left out.
            (Cause::Custom(_), Some(_)) => true,
            _ => false,
        };
        error
    }
}

fn table_key(table: &DeTable<'_>, key: &Spanned<DeString<'_>>) -> (Element, String) {
    (element(table), key.get_ref().to_string())
}

/// A whole number of at most 64 bits.
fn integer(number: &toml::de::DeInteger<'_>) -> Result<i64, DecodeError> {
    i64::from_str_radix(number.as_str(), number.radix())
        .map_err(|_| DecodeError::custom("the number is too large: a whole number of at most 64 bits"))
}

impl<'a> Deserializer<'a> for Value<'a> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            DeValue::String(s) => visitor.visit_borrowed_str(s),
            DeValue::Integer(number) => visitor.visit_i64(integer(number)?),
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => visitor.visit_f64(number),
                _ => Err(DecodeError::custom("the number is not finite: a finite number, or text")),
            },
            DeValue::Boolean(b) => visitor.visit_bool(*b),
            DeValue::Datetime(datetime) => visitor.visit_string(datetime.to_string()),
            DeValue::Array(array) => visitor.visit_seq(List { elements: array.iter(), faulty: self.faulty }),
            DeValue::Table(table) => self.table(table, visitor),
        }
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            DeValue::String(s) => visitor.visit_borrowed_str(s),
            DeValue::Integer(number) => Err(DecodeError::unquoted(number)),
            _ => Err(DecodeError::invalid_type(self.unexpected(), &"a string")),
        }
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        // `At` asks for its place by the name of the struct: serde has no other way to pass it on.
        if name == MARKER {
            let (start, end) = (self.start, self.end);
            visitor.visit_seq(Placed { next: Cell::new(0), start, end, value: self })
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.value {
            DeValue::String(s) => {
                let name: BorrowedStrDeserializer<'a, DecodeError> = BorrowedStrDeserializer::new(s);
                visitor.visit_enum(name)
            }
            _ => Err(DecodeError::choice(self.unexpected(), variants)),
        }
    }

    forward_to_deserialize_any! {
        <W: Visitor<'a>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl<'a> IntoDeserializer<'a, DecodeError> for Value<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The entries of a table.
struct Table<'a> {
    entries: toml::map::Iter<'a, Spanned<DeString<'a>>, Spanned<DeValue<'a>>>,
    table: &'a DeTable<'a>,
    value: Option<(&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)>,
    faulty: &'a Faulty,
}

impl<'a> MapAccess<'a> for Table<'a> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let faulty = self.faulty;
        // Elements that an earlier attempt found faulty are passed over, so that the rest is decoded and all faults are
        // found.
        let Some((key, value)) = self.entries.find(|(_, value)| !faulty.elements.contains(&element(*value))) else {
            return Ok(None);
        };
        self.value = Some((key, value));
        seed.deserialize(Key(key))
            .map(Some)
            .map_err(|error| error.or_place(|| Origin::entry(key.span(), value, table_key(self.table, key))))
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let (key, value) = self.value.take().ok_or_else(|| DecodeError::custom("a value is asked for twice"))?;
        seed.deserialize(Value::new(value, self.faulty))
            .map_err(|error| error.below(key.get_ref()))
            .map_err(|error| error.or_place(|| Origin::entry(value.span(), value, table_key(self.table, key))))
    }
}

/// The elements of an array.
struct List<'a> {
    elements: std::slice::Iter<'a, Spanned<DeValue<'a>>>,
    faulty: &'a Faulty,
}

impl<'a> SeqAccess<'a> for List<'a> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let faulty = self.faulty;
        let Some(value) = self.elements.find(|value| !faulty.elements.contains(&element(*value))) else {
            return Ok(None);
        };
        let place = || Origin::element(value.span(), value);
        seed.deserialize(Value::new(value, faulty)).map(Some).map_err(|error| error.or_place(place))
    }
}

/// A key of a table.
#[derive(Clone, Copy)]
struct Key<'a>(&'a Spanned<DeString<'a>>);

impl<'a> Deserializer<'a> for Key<'a> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_str(self.0.get_ref())
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name == MARKER {
            let Range { start, end } = self.0.span();
            visitor.visit_seq(Placed { next: Cell::new(0), start, end, value: self })
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        <W: Visitor<'a>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'a> EnumAccess<'a> for Key<'a> {
    type Error = DecodeError;
    type Variant = <BorrowedStrDeserializer<'a, DecodeError> as EnumAccess<'a>>::Variant;

    fn variant_seed<V: DeserializeSeed<'a>>(self, seed: V) -> Result<(V::Value, Self::Variant), DecodeError> {
        BorrowedStrDeserializer::new(self.0.get_ref()).variant_seed(seed)
    }
}

/// What [`super::At`] reads: start, end, value.
struct Placed<D> {
    next: Cell<u8>,
    start: usize,
    end: usize,
    value: D,
}

impl<'a, D: Deserializer<'a, Error = DecodeError> + Copy> SeqAccess<'a> for Placed<D> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        match self.next.replace(self.next.get() + 1) {
            0 => seed.deserialize(UsizeDeserializer::new(self.start)).map(Some),
            1 => seed.deserialize(UsizeDeserializer::new(self.end)).map(Some),
            2 => seed.deserialize(self.value).map(Some),
            _ => Ok(None),
        }
    }
}

/// The elements of `array` that are tables, for walking the tree beside the types.
pub fn tables<'a>(array: &'a DeArray<'a>) -> impl Iterator<Item = &'a DeTable<'a>> {
    array.iter().filter_map(|value| value.get_ref().as_table())
}
