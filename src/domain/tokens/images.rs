//! What an image costs, in tokens of input: OpenAI's tile and patch rules, by family of models.
//!
//! Source: OpenAI's guide "Images and vision" (tiles, patches and multipliers; read on 2026-11-22 in stored copies of
//! spring and September 2026). An image whose size is not known, such as one behind an address, is taken for the
//! largest there is. Where the guide scales and rounds, this is never below it.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::domain::model_name::is_of_family;

/// Most characters of base64 that are read to find an image's size: JPEG may carry a preview and a colour profile
/// before it.
const HEAD_CHARS: usize = 256 << 10;

/// Reads base64 with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How closely the model shall look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Detail {
    /// `low`
    Low,
    /// `high`
    High,
    /// `auto`, `original`, nothing or something new: as much as the model ever looks at.
    #[default]
    Most,
}

impl Detail {
    pub(super) fn from_name(name: &str) -> Self {
        match name {
            "low" => Self::Low,
            "high" => Self::High,
            _ => Self::Most,
        }
    }
}

/// Width and height, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    width: u64,
    height: u64,
}

/// How a family of models counts an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ImageRule {
    /// A base, and so much for each square of 512 pixels once the image is within 2048 × 2048 and its short side
    /// within 768.
    Tiles { base: u64, tile: u64 },
    /// Patches of 32 pixels, at most so many, times a factor in hundredths.
    Patches { low: u64, high: u64, most: u64, hundredths: u64 },
}

const fn tiles(base: u64, tile: u64) -> ImageRule {
    ImageRule::Tiles { base, tile }
}

/// 1,536 patches at any detail.
const fn small_patches(hundredths: u64) -> ImageRule {
    ImageRule::Patches { low: 1_536, high: 1_536, most: 1_536, hundredths }
}

/// 2,500 patches at `high`; `auto` may mean `original`.
const fn large_patches(most: u64, hundredths: u64) -> ImageRule {
    ImageRule::Patches { low: 256, high: 2_500, most, hundredths }
}

/// For a name that says nothing: about 16,384 tokens, what Qwen2-VL makes of its largest image (12.8 megapixels, 28
/// pixels a token), the largest default of the models that are commonly served.
const UNKNOWN: ImageRule = ImageRule::Patches { low: 12_544, high: 12_544, most: 12_544, hundredths: 131 };

/// Most squares of 512 pixels in 2048 × 768.
const MOST_TILES: u64 = 8;

/// Families of base names, first match wins.
const RULES: [(&str, ImageRule); 24] = [
    ("gpt-4o-mini", tiles(2_833, 5_667)),
    ("gpt-4o", tiles(85, 170)),
    ("chatgpt-4o", tiles(85, 170)),
    ("gpt-4.1-mini", small_patches(162)),
    ("gpt-4.1-nano", small_patches(246)),
    ("gpt-4", tiles(85, 170)),
    ("o4-mini", small_patches(172)),
    ("o1", tiles(75, 150)),
    ("o3", tiles(75, 150)),
    ("computer-use-preview", tiles(65, 129)),
    ("gpt-5-mini", small_patches(162)),
    ("gpt-5-nano", small_patches(246)),
    ("gpt-5-codex-mini", small_patches(162)),
    ("gpt-5.1-codex-mini", small_patches(162)),
    ("gpt-5.1", tiles(70, 140)),
    ("gpt-5.2", small_patches(120)),
    ("gpt-5.3", small_patches(120)),
    ("gpt-5.4-mini", large_patches(10_000, 162)),
    ("gpt-5.4-nano", large_patches(10_000, 246)),
    ("gpt-5.4", large_patches(10_000, 120)),
    ("gpt-5.5", large_patches(10_000, 120)),
    // since which of these `original` goes up to 30,000 is not known; gpt-6 does
    ("gpt-5.", large_patches(30_000, 120)),
    ("gpt-5", tiles(70, 140)),
    ("gpt-6", large_patches(30_000, 120)),
];

impl ImageRule {
    /// The rule of a model, by its base.
    pub(super) fn of_base(base: &str) -> Self {
        RULES.iter().find(|(family, _)| is_of_family(base, family)).map_or(UNKNOWN, |(_, rule)| *rule)
    }

    /// Tokens of an image; `None` is one whose size is not known.
    pub(super) fn tokens(self, size: Option<Size>, detail: Detail) -> u64 {
        match self {
            Self::Tiles { base, .. } if detail == Detail::Low => base,
            Self::Tiles { base, tile } => base + tile * size.map_or(MOST_TILES, Size::tiles),
            Self::Patches { low, high, most, hundredths } => {
                let limit = match detail {
                    Detail::Low => low,
                    Detail::High => high,
                    Detail::Most => most,
                };
                let patches = size.map_or(limit, |size| size.patches().min(limit));
                (patches * hundredths).div_ceil(100)
            }
        }
    }
}

impl Size {
    fn new(width: u64, height: u64) -> Option<Self> {
        (width > 0 && height > 0).then_some(Self { width, height })
    }

    /// Squares of 512 pixels, once scaled down to 2048 × 2048 and then to a short side of 768.
    fn tiles(self) -> u64 {
        let (mut short, mut long) = (self.width.min(self.height), self.width.max(self.height));
        if long > 2_048 {
            short = (short * 2_048).div_ceil(long);
            long = 2_048;
        }
        if short > 768 {
            long = (long * 768).div_ceil(short);
            short = 768;
        }
        short.div_ceil(512) * long.div_ceil(512)
    }

    fn patches(self) -> u64 {
        self.width.div_ceil(32) * self.height.div_ceil(32)
    }

    /// The size of the image in a `data:` URL, from its header; `None` for any other address, and where it can't be
    /// read.
    pub(super) fn of_url(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("data:")?;
        let (kind, text) = rest.split_once(',')?;
        if !kind.ends_with(";base64") {
            return None;
        }
        Self::of_image(&decoded(text, 64)?).or_else(|| Self::of_jpeg(&decoded(text, HEAD_CHARS)?))
    }

    /// Reads the headers of PNG, GIF and WebP.
    fn of_image(bytes: &[u8]) -> Option<Self> {
        let big = |at: usize| Some(u64::from(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?)));
        let little = |at: usize, length: usize| {
            let number = bytes.get(at..at + length)?;
            Some(number.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        };
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.get(12..16)? == b"IHDR" {
            return Self::new(big(16)?, big(20)?);
        }
        if bytes.starts_with(b"GIF8") {
            return Self::new(little(6, 2)?, little(8, 2)?);
        }
        if !bytes.starts_with(b"RIFF") || bytes.get(8..12)? != b"WEBP" {
            return None;
        }
        match bytes.get(12..16)? {
            b"VP8X" => Self::new(little(24, 3)? + 1, little(27, 3)? + 1),
            b"VP8L" => {
                let both = little(21, 4)?;
                Self::new((both & 0x3fff) + 1, (both >> 14 & 0x3fff) + 1)
            }
            b"VP8 " => Self::new(little(26, 2)? & 0x3fff, little(28, 2)? & 0x3fff),
            _ => None,
        }
    }

    /// Walks the segments of a JPEG up to the frame's header.
    fn of_jpeg(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?)));
        if !bytes.starts_with(&[0xff, 0xd8]) {
            return None;
        }
        let mut at = 2;
        loop {
            if *bytes.get(at)? != 0xff {
                return None;
            }
            match *bytes.get(at + 1)? {
                0xff => at += 1,
                0x01 | 0xd0..=0xd8 => at += 2,
                // a frame's header, of whatever coding; c4, c8 and cc are tables
                0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    return Self::new(number(at + 7)?, number(at + 5)?);
                }
                _ => at += 2 + usize::try_from(number(at + 2)?).ok()?,
            }
        }
    }
}

/// The first bytes behind a base64 text.
fn decoded(text: &str, most_chars: usize) -> Option<Vec<u8>> {
    let head = text.as_bytes().get(..text.len().min(most_chars) / 4 * 4)?;
    BASE64.decode(head).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(model: &str, width: u64, height: u64, detail: Detail) -> u64 {
        ImageRule::of_base(model).tokens(Size::new(width, height), detail)
    }

    #[test]
    fn the_guides_own_examples() {
        for (model, width, height, detail, want) in [
            ("gpt-4o", 1_024, 1_024, Detail::High, 765),
            ("gpt-4o", 2_048, 4_096, Detail::High, 1_105),
            ("gpt-4o", 4_096, 8_192, Detail::Low, 85),
            ("gpt-4.1", 1_024, 1_024, Detail::Most, 765),
            ("gpt-4o-mini", 1_024, 1_024, Detail::High, 2_833 + 4 * 5_667),
            ("o3-2025-04-16", 128, 64, Detail::High, 75 + 150),
            ("gpt-5", 1_024, 1_024, Detail::High, 70 + 4 * 140),
            ("gpt-4.1-mini", 1_024, 1_024, Detail::Low, 1_659),
            ("gpt-4.1-nano", 1_024, 1_024, Detail::High, 2_520),
            ("o4-mini", 1_024, 1_024, Detail::High, 1_762),
            // the guide says 1,452 patches: it scales until whole patches fit, this takes all that may
            ("gpt-5-mini", 1_800, 2_400, Detail::High, 2_489),
            ("gpt-6-astra", 640, 480, Detail::High, 360),
            ("gpt-6-astra", 6_400, 1_440, Detail::Most, 10_800),
            ("gpt-6-astra", 6_400, 1_440, Detail::High, 3_000),
        ] {
            assert_eq!(tokens(model, width, height, detail), want, "{model} {width}x{height} {detail:?}");
        }
    }

    #[test]
    fn an_image_of_unknown_size_is_the_largest_there_is() {
        for model in [
            "gpt-4o",
            "gpt-4o-mini",
            "gpt-4.1-mini",
            "o1",
            "gpt-5",
            "gpt-5.2",
            "gpt-5.4",
            "gpt-6-sol",
            "llava",
        ] {
            for detail in [Detail::Low, Detail::High, Detail::Most] {
                let unknown = ImageRule::of_base(model).tokens(None, detail);
                for side in [1, 511, 512, 768, 769, 2_048, 5_000, 65_535] {
                    for other in [1, 600, 2_048, 65_535] {
                        assert!(
                            tokens(model, side, other, detail) <= unknown,
                            "{model} {side}x{other} {detail:?}"
                        );
                    }
                }
            }
        }
        assert_eq!(ImageRule::of_base("gpt-5.6-sol").tokens(None, Detail::Most), 36_000);
    }

    fn url(bytes: &[u8]) -> String {
        format!("data:image/x;base64,{}", BASE64.encode(bytes))
    }

    #[test]
    fn sizes_are_read_from_headers() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x04\0\0\0\x03\0\x08\x06\0\0\0";
        let gif = b"GIF89a\x40\x01\xf0\x00rest";
        let lossy = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x40\x01\xf0\x00";
        let lossless =
            [b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f".as_slice(), &(319_u32 | 239 << 14).to_le_bytes()].concat();
        let extended = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x3f\x01\0\xef\0\0";
        let preview = [b"\xff\xd8\xff\xe1\x80\x00".as_slice(), &[0x77; 0x7ffe]].concat();
        let frame = b"\xff\xff\xc2\0\x0b\x08\0\xf0\x01\x40\x01";
        let jpeg = [preview.as_slice(), b"\xff\xc4\0\x04\0\0", frame].concat();
        let small = Size { width: 320, height: 240 };
        for (name, bytes, want) in [
            ("png", png.as_slice(), Some(Size { width: 1_024, height: 768 })),
            ("gif", gif, Some(small)),
            ("lossy WebP", lossy, Some(small)),
            ("lossless WebP", &lossless, Some(small)),
            ("extended WebP", extended, Some(small)),
            ("jpeg", &jpeg, Some(small)),
            ("jpeg without a frame", &preview, None),
            ("empty png", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\0\0\0\0\0", None),
            ("text", b"hello", None),
            ("nothing", b"", None),
        ] {
            assert_eq!(Size::of_url(&url(bytes)), want, "{name}");
        }
        for cut in 0..jpeg.len().min(40) {
            let _ = Size::of_url(&url(&jpeg[..cut]));
        }
        for address in ["https://x/y.png", "data:", "data:image/png,xyz", "data:image/png;base64,%%%%", ""] {
            assert_eq!(Size::of_url(address), None, "{address}");
        }
        let unpadded = url(png).trim_end_matches('=').to_owned();
        assert!(Size::of_url(&unpadded).is_some());
    }
}
