//! Views of a property section: what is repeated in it, and what travels with a message.

use super::{Property, PropertyId, PropertyIter, PropertySet};
use crate::codec::var_int;
use crate::codec::writer::{cut, put_str, str_size};

/// The user properties of a packet, in their order.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    raw: &'a [u8],
}

impl<'a> UserProperties<'a> {
    /// The user properties among the encoded properties in `raw`; see `put_user_property`.
    pub fn from_raw(raw: &'a [u8]) -> UserProperties<'a> {
        UserProperties { raw }
    }

    /// The encoded properties among which the user properties stand.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        PropertyIter::new(self.raw).filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The encoded size.
    pub fn size(&self) -> usize {
        self.iter().map(|(name, value)| Property::UserProperty(name, value).size()).sum()
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|(name, value)| put_user_property(out, name, value));
    }
}

/// Appends one user property to an encoded section.
#[inline]
pub fn put_user_property(out: &mut Vec<u8>, name: &str, value: &str) {
    put_user_property_name(out, name, value.len());
    put_user_property_value(out, value);
}

/// Appends the first part of a user property, with room for a value of `value_size` bytes.
#[inline]
pub fn put_user_property_name(out: &mut Vec<u8>, name: &str, value_size: usize) {
    let name = cut(name);
    let [high, low] = (name.len() as u16).to_be_bytes();
    out.reserve(1 + 2 + name.len() + 2 + value_size);
    out.extend_from_slice(&[PropertyId::UserProperty as u8, high, low]);
    out.extend_from_slice(name.as_bytes());
}

/// Appends the second part of a user property.
#[inline]
pub fn put_user_property_value(out: &mut Vec<u8>, value: &str) {
    put_str(out, value);
}

/// The encoded size of one user property.
#[inline]
pub fn user_property_size(name: &str, value: &str) -> usize {
    1 + str_size(name) + str_size(value)
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl core::fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The subscription identifiers of a PUBLISH, in their order.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIds<'a> {
    raw: &'a [u8],
    list: &'a [u32],
}

impl<'a> SubscriptionIds<'a> {
    /// Each 1..=268,435,455.
    pub fn from_list(list: &'a [u32]) -> SubscriptionIds<'a> {
        SubscriptionIds { raw: &[], list }
    }

    /// The subscription identifiers among the encoded properties in `raw`.
    pub(super) fn from_raw(raw: &'a [u8]) -> SubscriptionIds<'a> {
        SubscriptionIds { raw, list: &[] }
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + Clone + use<'a> {
        let encoded = PropertyIter::new(self.raw).filter_map(|property| match property {
            Property::SubscriptionId(id) => Some(id),
            _ => None,
        });
        self.list.iter().copied().chain(encoded)
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        // Most messages have no properties at all.
        self.list.is_empty() && (self.raw.is_empty() || self.has_none())
    }

    #[inline(never)]
    fn has_none(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The encoded size.
    pub fn size(&self) -> usize {
        self.iter().map(|id| 1 + var_int::size(id as usize)).sum()
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIds<'_> {}

impl core::fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The properties of a PUBLISH or will that travel with the message, in the bytes that were received: all but topic
/// alias, message expiry, subscription identifiers and will delay.
#[derive(Clone, Copy, Default)]
pub struct ForwardedProperties<'a> {
    /// These bytes begin and end with a forwarded property; others may stand between.
    raw: &'a [u8],
    /// The size of the forwarded properties alone, so `size == raw.len()` when no others stand between.
    size: usize,
}

impl<'a> ForwardedProperties<'a> {
    /// The properties `raw`, all of which are forwarded.
    #[inline]
    pub fn from_raw(raw: &'a [u8]) -> ForwardedProperties<'a> {
        ForwardedProperties { raw, size: raw.len() }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// The bytes of all pieces.
    #[inline]
    pub fn size(&self) -> usize {
        self.size
    }

    /// All properties in one piece, if they were received so.
    #[inline]
    pub fn whole(&self) -> Option<&'a [u8]> {
        (self.size == self.raw.len()).then_some(self.raw)
    }

    /// The bytes, in order, in as few pieces as they were received in: nearly always one.
    #[inline]
    pub fn pieces(&self) -> Pieces<'a> {
        Pieces { rest: self.raw, left: self.size }
    }

    /// The bytes, in order, in two pieces; they are put together in `joined` if they were received in more.
    #[inline(always)]
    pub fn halves<'b>(&self, joined: &'b mut Vec<u8>) -> [&'b [u8]; 2]
    where
        'a: 'b,
    {
        match self.whole() {
            Some(bytes) => [bytes, &[]],
            None => self.halves_of_pieces(joined),
        }
    }

    #[inline(never)]
    fn halves_of_pieces<'b>(&self, joined: &'b mut Vec<u8>) -> [&'b [u8]; 2]
    where
        'a: 'b,
    {
        let mut pieces = self.pieces();
        let halves = [(); 2].map(|()| pieces.next().unwrap_or_default());
        if pieces.next().is_none() {
            return halves;
        }
        joined.clear();
        self.pieces().for_each(|piece| joined.extend_from_slice(piece));
        [joined, &[]]
    }

    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + Clone + use<'a> {
        let whole = self.size == self.raw.len();
        PropertyIter::new(self.raw)
            .filter(move |property| whole || !PropertySet::NOT_FORWARDED.contains(property.id()))
    }
}

impl PartialEq for ForwardedProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.pieces().flatten().eq(other.pieces().flatten())
    }
}

impl Eq for ForwardedProperties<'_> {}

impl core::fmt::Debug for ForwardedProperties<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The iterator of `ForwardedProperties::pieces`.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let (piece, rest) =
            if self.left == self.rest.len() { (self.rest, &[][..]) } else { first_run(self.rest) };
        self.rest = rest;
        self.left = if piece.is_empty() { 0 } else { self.left.saturating_sub(piece.len()) };
        Some(piece)
    }
}

/// The first forwarded properties of `raw` that stand together, and the bytes behind them.
fn first_run(raw: &[u8]) -> (&[u8], &[u8]) {
    let mut properties = PropertyIter::new(raw);
    let mut start = raw;
    loop {
        let before = properties.rest();
        let forwarded = properties
            .next()
            .is_some_and(|property| !PropertySet::NOT_FORWARDED.contains(property.id()));
        let in_run = start.len() > before.len();
        if !forwarded && (in_run || properties.rest().len() == before.len()) {
            let (run, _) = start.split_at_checked(start.len() - before.len()).unwrap_or_default();
            return (run, before);
        }
        if !forwarded {
            start = properties.rest();
        }
        if properties.rest().is_empty() {
            return (start, &[]);
        }
    }
}

/// Finds the forwarded properties while a section is read.
#[derive(Debug, Default)]
pub(in crate::codec) struct Forwarding {
    start: usize,
    end: usize,
    size: usize,
}

impl Forwarding {
    /// Adds a forwarded property, which stands at `start..end` of the section.
    #[inline]
    pub(crate) fn add(&mut self, start: usize, end: usize) {
        if self.size == 0 {
            self.start = start;
        }
        self.end = end;
        self.size += end - start;
    }

    pub(crate) fn of<'a>(&self, section: &'a [u8]) -> ForwardedProperties<'a> {
        let raw = section.get(self.start..self.end).unwrap_or_default();
        ForwardedProperties { raw, size: self.size }
    }
}
