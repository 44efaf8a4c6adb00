//! The one walk over a request's body that counts its input.
//!
//! Source: OpenAI's cookbook "How to count tokens" (3 tokens a message, 1 a name, 3 to prime the reply; read on
//! 2026-11-21) and the API's description 2.3.0. Strings are borrowed from the body, and nothing is kept.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::images::{Detail, Size};
use super::{Encoding, Scale, Tally, tools};
use crate::domain::endpoint::Endpoint;
use crate::domain::unboundable::Unboundable;

/// What a forced tool may add: a few tokens that no document names.
const FORCED_TOOL: u64 = 8;
/// What the announcement of a schema for the answer may add beside its JSON.
const FORMAT: u64 = 32;

/// What stands between the messages.
struct Framing {
    /// Before the first and behind the last.
    whole: u64,
    /// Around each.
    message: u64,
    /// Around each object in them, such as a tool's call.
    object: u64,
}

/// For a model that is not known: the templates of the models that are commonly served put up to 6 tokens around a
/// message, a default prompt of up to 40 before the first, and write out the JSON around a tool's call.
const fn framing(scale: Scale) -> Framing {
    match scale {
        Scale::Bytes => Framing { whole: 64, message: 8, object: 32 },
        // its template begins with a system message of its own, of about 80 tokens
        Scale::Table(Encoding::O200kHarmony) => Framing { whole: 128, message: 4, object: 0 },
        Scale::Table(_) => Framing { whole: 3, message: 3, object: 0 },
    }
}

/// Counts a request's input.
pub(super) fn request(tally: &mut Tally, endpoint: Endpoint, body: &[u8]) -> Result<(), serde_json::Error> {
    let framing = framing(tally.scale());
    if matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Responses | Endpoint::Score) {
        tally.add(framing.whole);
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    reader.deserialize_map(Request { tally, endpoint, framing })?;
    reader.end()
}

/// The body itself.
struct Request<'t> {
    tally: &'t mut Tally,
    endpoint: Endpoint,
    framing: Framing,
}

/// Where a member of the body goes.
enum Member {
    /// Messages or items, each in its frame.
    Messages,
    /// A text in a frame of its own.
    Instructions,
    Content,
    Tools,
    Functions,
    ToolChoice,
    /// `response_format`
    Format,
    /// `text`, which carries the format of a response.
    Text,
    Prediction,
    Nothing,
}

fn member(endpoint: Endpoint, key: &str) -> Member {
    use Endpoint::{ChatCompletions, Completions, Embeddings, Moderations, Responses, Score};
    match (endpoint, key) {
        (ChatCompletions | Score, "messages") | (Responses, "input") => Member::Messages,
        (Responses, "instructions") => Member::Instructions,
        (Completions, "prompt" | "suffix") | (Embeddings | Moderations, "input") => Member::Content,
        (ChatCompletions | Responses, "tools") => Member::Tools,
        (ChatCompletions, "functions") => Member::Functions,
        (ChatCompletions, "function_call") | (ChatCompletions | Responses, "tool_choice") => {
            Member::ToolChoice
        }
        (ChatCompletions, "response_format") => Member::Format,
        (Responses, "text") => Member::Text,
        (ChatCompletions, "prediction") => Member::Prediction,
        _ => Member::Nothing,
    }
}

impl<'de> Visitor<'de> for Request<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { tally, endpoint, framing } = self;
        while let Some(member) = map.next_key_seed(Key(|key: &str| member(endpoint, key)))? {
            match member {
                Member::Messages => map.next_value_seed(Content { tally, frame: Some(framing.message) })?,
                Member::Instructions => {
                    tally.add(framing.message + 1);
                    map.next_value_seed(Content { tally, frame: None })?;
                }
                Member::Content => map.next_value_seed(Content { tally, frame: None })?,
                Member::Tools => tools::add_tools(tally, map.next_value()?),
                Member::Functions => tools::add_functions(tally, map.next_value()?),
                Member::ToolChoice => add_choice(tally, map.next_value()?),
                Member::Format => add_format(tally, map.next_value()?),
                Member::Text => match map.next_value::<&RawValue>()? {
                    text if text.get() == "null" => {}
                    text => add_format_within(tally, text),
                },
                Member::Prediction => {
                    let before = tally.counted;
                    map.next_value_seed(Content { tally, frame: None })?;
                    tally.take_as_predicted(before);
                }
                Member::Nothing => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// `"auto"` and its like cost nothing, a tool that is named may.
fn add_choice(tally: &mut Tally, choice: &RawValue) {
    if choice.get().starts_with('{') {
        tally.add(FORCED_TOOL);
        tally.add_text(choice.get());
    }
}

/// A format with anything beside its type, such as a schema, is told to the model.
fn add_format(tally: &mut Tally, format: &RawValue) {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Plain {
        #[serde(rename = "type", default)]
        _type: IgnoredAny,
    }
    if format.get() != "null" && serde_json::from_str::<Plain>(format.get()).is_err() {
        tally.add(FORMAT);
        tally.add_text(format.get());
    }
}

fn add_format_within(tally: &mut Tally, text: &RawValue) {
    #[derive(Deserialize)]
    struct Text<'a> {
        #[serde(borrow, default)]
        format: Option<&'a RawValue>,
    }
    match serde_json::from_str::<Text<'_>>(text.get()) {
        Ok(Text { format: None }) => {}
        Ok(Text { format: Some(format) }) => add_format(tally, format),
        Err(_) => add_format(tally, text),
    }
}

/// A key or a short word, sorted where it stands.
struct Key<F>(F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Key<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for Key<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<T, E> {
        Ok((self.0)(key))
    }
}

/// Texts, parts, arrays of them and token arrays. With a `frame`, they are messages, and so much is around each.
struct Content<'t> {
    tally: &'t mut Tally,
    frame: Option<u64>,
}

impl<'de> DeserializeSeed<'de> for Content<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Content<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("content")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        // a bare text in the place of messages is one of the user's
        self.tally.add(self.frame.map_or(0, |frame| frame + 1));
        self.tally.add_text(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        match self.frame {
            None => while items.next_element_seed(Content { tally: self.tally, frame: None })?.is_some() {},
            Some(frame) => while items.next_element_seed(Message { tally: self.tally, frame })?.is_some() {},
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        read_object(self.tally, Level::Part, map)
    }

    fn visit_u64<E>(self, _token: u64) -> Result<(), E> {
        self.tally.add(1);
        Ok(())
    }

    fn visit_i64<E>(self, _token: i64) -> Result<(), E> {
        self.tally.add(1);
        Ok(())
    }

    fn visit_f64<E>(self, _token: f64) -> Result<(), E> {
        self.tally.add(1);
        Ok(())
    }

    fn visit_bool<E>(self, _value: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// One message or item in its frame.
struct Message<'t> {
    tally: &'t mut Tally,
    frame: u64,
}

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.tally.add(self.frame);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        read_object(self.tally, Level::Message, map)
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.tally.add_text(text);
        Ok(())
    }

    // whatever else stands in a message's place is the provider's to refuse
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Content { tally: self.tally, frame: None })?.is_some() {}
        Ok(())
    }

    fn visit_u64<E>(self, _value: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _value: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _value: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _value: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Message,
    Part,
}

/// What a `type` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing but text, or something that its members tell.
    Plain,
    Image,
    Reasoning,
    Reference,
    Unknown,
}

/// Source: OpenAI API 2.3.0, message parts and input items. What a hosted tool left behind is not here: how much of it
/// is shown to the model again, nobody says.
fn kind(name: &str) -> Kind {
    match name {
        "text"
        | "input_text"
        | "output_text"
        | "summary_text"
        | "reasoning_text"
        | "refusal"
        | "content"
        | "input_audio"
        | "file"
        | "input_file"
        | "message"
        | "function"
        | "function_call"
        | "function_call_output"
        | "custom"
        | "custom_tool_call"
        | "custom_tool_call_output" => Kind::Plain,
        "image_url" | "input_image" => Kind::Image,
        "reasoning" => Kind::Reasoning,
        "item_reference" => Kind::Reference,
        _ => Kind::Unknown,
    }
}

/// What a member of a message or part is to the count.
enum Inside {
    Type,
    Id,
    Name,
    Role,
    ImageUrl,
    Detail,
    FileId,
    FileContent,
    InputAudio,
    /// An answer in sound that the provider keeps.
    StoredAudio,
    Encrypted,
    /// JSON in a text; some servers take it as an object.
    Arguments,
    /// Not shown to the model.
    Unseen,
    Text,
}

fn inside(key: &str) -> Inside {
    match key {
        "type" => Inside::Type,
        "id" => Inside::Id,
        "name" => Inside::Name,
        "role" => Inside::Role,
        "image_url" => Inside::ImageUrl,
        "detail" => Inside::Detail,
        "file_id" => Inside::FileId,
        "file_url" | "file_data" => Inside::FileContent,
        "input_audio" => Inside::InputAudio,
        "audio" => Inside::StoredAudio,
        "encrypted_content" => Inside::Encrypted,
        "arguments" => Inside::Arguments,
        "annotations" | "logprobs" | "status" | "prompt_cache_breakpoint" => Inside::Unseen,
        _ => Inside::Text,
    }
}

/// What was seen of an object before its end: its members come in any order.
#[derive(Default)]
struct Seen {
    kind: Option<Kind>,
    id: bool,
    role: bool,
    encrypted: bool,
    file_id: bool,
    image: Option<Option<Size>>,
    detail: Option<Detail>,
}

fn read_object<'de, A: MapAccess<'de>>(tally: &mut Tally, level: Level, mut map: A) -> Result<(), A::Error> {
    let mut seen = Seen::default();
    if level == Level::Part {
        tally.add(framing(tally.scale()).object);
    }
    while let Some(member) = map.next_key_seed(Key(inside))? {
        match member {
            Inside::Type => seen.kind = map.next_value_seed(Word(kind))?.or(seen.kind),
            Inside::Id if level == Level::Message => {
                seen.id |= map.next_value::<Option<IgnoredAny>>()?.is_some();
            }
            Inside::Name => {
                tally.add(1);
                map.next_value_seed(Content { tally, frame: None })?;
            }
            Inside::Role => {
                seen.role = true;
                map.next_value_seed(Content { tally, frame: None })?;
            }
            Inside::ImageUrl => {
                let address = map.next_value_seed(Address)?;
                if let Some(ImageAddress { size, detail }) = address {
                    seen.image = Some(size);
                    seen.detail = detail.or(seen.detail);
                }
            }
            Inside::Detail => seen.detail = map.next_value_seed(Word(Detail::from_name))?.or(seen.detail),
            Inside::FileId => seen.file_id |= map.next_value::<Option<IgnoredAny>>()?.is_some(),
            Inside::FileContent => {
                if map.next_value::<Option<IgnoredAny>>()?.is_some() {
                    tally.cannot(Unboundable::File);
                }
            }
            Inside::InputAudio => {
                // no sound that is taken has fewer bytes than tokens: these are 10 a second
                let raw = map.next_value::<&RawValue>()?;
                tally.add_audio(raw.get().len() as u64);
            }
            Inside::StoredAudio => {
                if map.next_value::<Option<IgnoredAny>>()?.is_some() {
                    tally.cannot(Unboundable::StoredItem);
                }
            }
            Inside::Encrypted => {
                let raw = map.next_value::<&RawValue>()?.get();
                seen.encrypted |= raw != "null";
                tally.add(raw.len() as u64);
            }
            Inside::Arguments => {
                let raw = map.next_value::<&RawValue>()?.get();
                match serde_json::from_str::<Option<Cow<'_, str>>>(raw) {
                    Ok(text) => tally.add_text(text.as_deref().unwrap_or_default()),
                    Err(_) => tally.add_text(raw),
                }
            }
            Inside::Unseen => drop(map.next_value::<IgnoredAny>()?),
            Inside::Id | Inside::Text => map.next_value_seed(Content { tally, frame: None })?,
        }
    }
    seen.ends(tally, level);
    Ok(())
}

impl Seen {
    fn ends(self, tally: &mut Tally, level: Level) {
        let image_by_id = self.file_id && self.kind == Some(Kind::Image);
        if self.image.is_some() || image_by_id {
            tally.add_image(self.image.flatten(), self.detail.unwrap_or_default());
        } else if self.file_id {
            tally.cannot(Unboundable::File);
        }
        match self.kind {
            Some(Kind::Unknown) => tally.cannot(Unboundable::UnknownPart),
            Some(Kind::Reference) => tally.cannot(Unboundable::StoredItem),
            Some(Kind::Reasoning) if !self.encrypted => tally.cannot(Unboundable::StoredItem),
            None if level == Level::Message && self.id && !self.role => {
                tally.cannot(Unboundable::StoredItem);
            }
            _ => {}
        }
    }
}

/// A word where there is one; nothing for what is no text.
struct Word<F>(F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Word<F> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        let text: Option<Cow<'_, str>> = serde_json::from_str(raw.get()).map_err(de::Error::custom)?;
        Ok(text.map(|text| (self.0)(&text)))
    }
}

/// What an image's address tells.
struct ImageAddress {
    size: Option<Size>,
    detail: Option<Detail>,
}

/// `image_url`: a text, or an object with `url` and `detail`; nothing where it is null.
struct Address;

impl<'de> DeserializeSeed<'de> for Address {
    type Value = Option<ImageAddress>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Address {
    type Value = Option<ImageAddress>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an image's address")
    }

    fn visit_str<E>(self, url: &str) -> Result<Self::Value, E> {
        Ok(Some(ImageAddress { size: Size::of_url(url), detail: None }))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = ImageAddress { size: None, detail: None };
        while let Some(key) = map.next_key_seed(Key(inside_address))? {
            match key {
                InsideAddress::Url => found.size = map.next_value_seed(Word(Size::of_url))?.flatten(),
                InsideAddress::Detail => found.detail = map.next_value_seed(Word(Detail::from_name))?,
                InsideAddress::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Some(found))
    }
}

enum InsideAddress {
    Url,
    Detail,
    Other,
}

fn inside_address(key: &str) -> InsideAddress {
    match key {
        "url" => InsideAddress::Url,
        "detail" => InsideAddress::Detail,
        _ => InsideAddress::Other,
    }
}
