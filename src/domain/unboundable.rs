//! Why the cost of a request can't be bounded before it is sent: it is not all in the request.

use std::fmt;

/// Something in a request whose cost its own bytes do not tell. Under a hard budget such a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unboundable {
    /// `previous_response_id` or `conversation`: earlier turns that the provider keeps.
    StoredConversation,
    /// `prompt` of a response: a template that the provider keeps.
    StoredPrompt,
    /// An item, a sound or a thought that is only named and that the provider keeps.
    StoredItem,
    /// A file by id, by address or inline: its pages are read and drawn by the provider.
    File,
    /// A tool that the provider runs, at prices and with tokens of its own.
    HostedTool,
    /// `web_search_options`.
    WebSearch,
    /// `modalities` beyond text: sounds are made under prices and caps of their own.
    AudioOutput,
    /// `context_management`: the provider may rewrite the conversation on the way, for tokens of its own.
    ContextManagement,
    /// A part or an item of a kind that is unknown here.
    UnknownPart,
    /// JSON that another reader may understand and this one does not: a lone surrogate, a number beyond all numbers.
    Unreadable,
}

impl Unboundable {
    /// The name in logs and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StoredConversation => "stored_conversation",
            Self::StoredPrompt => "stored_prompt",
            Self::StoredItem => "stored_item",
            Self::File => "file",
            Self::HostedTool => "hosted_tool",
            Self::WebSearch => "web_search",
            Self::AudioOutput => "audio_output",
            Self::ContextManagement => "context_management",
            Self::UnknownPart => "unknown_part",
            Self::Unreadable => "unreadable",
        }
    }

    /// The member of the request to point at.
    pub const fn param(self) -> Option<&'static str> {
        match self {
            Self::StoredConversation => Some("previous_response_id"),
            Self::StoredPrompt => Some("prompt"),
            Self::HostedTool => Some("tools"),
            Self::WebSearch => Some("web_search_options"),
            Self::AudioOutput => Some("modalities"),
            Self::ContextManagement => Some("context_management"),
            Self::StoredItem | Self::File | Self::UnknownPart | Self::Unreadable => None,
        }
    }
}

/// What it is, as the subject of a sentence: "a stored conversation can't be …".
impl fmt::Display for Unboundable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StoredConversation => "a conversation that the provider keeps",
            Self::StoredPrompt => "a prompt template that the provider keeps",
            Self::StoredItem => "an item that the provider keeps",
            Self::File => "a file",
            Self::HostedTool => "a tool that the provider runs",
            Self::WebSearch => "a web search",
            Self::AudioOutput => "an answer in sound",
            Self::ContextManagement => "a conversation that the provider rewrites",
            Self::UnknownPart => "a part of an unknown kind",
            Self::Unreadable => "JSON with a text or a number that has no value",
        })
    }
}

impl std::error::Error for Unboundable {}
