//! The keys and values of one sequence.

use crate::gguf::Shape;

/// Positions of one key tile: scores of sixteen positions come out of one register.
pub(crate) const TILE: usize = 16;
/// Positions of one page.
const PAGE: usize = 64;

/// What one sequence remembers: keys and values of all layers, in half precision.
///
/// It grows by pages of 64 positions, so nothing is ever copied and little is held in vain. 16 bits halve the
/// memory (23 KiB a token instead of 46 for the 135 M model) and what attention reads; the logits move by less
/// than the rounding of the weights does.
pub struct Cache {
    length: usize,
    layers: usize,
    kv_width: usize,
    /// Each `[layer][keys, then values]`; keys `[tile][head][channel][16 positions]`, values `[position][head][channel]`.
    pages: Vec<Box<[u16]>>,
}

impl Cache {
    /// Makes an empty cache for a model of this shape.
    pub fn new(shape: &Shape) -> Self {
        Self { length: 0, layers: shape.layers, kv_width: shape.kv_width(), pages: Vec::new() }
    }

    /// Returns the positions held.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the memory held, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.pages.len() * self.page_size() * size_of::<u16>()
    }

    /// Returns how many positions `positions` take up, whole pages.
    pub fn rounded(positions: usize) -> usize {
        positions.next_multiple_of(PAGE)
    }

    fn page_size(&self) -> usize {
        self.layers * 2 * PAGE * self.kv_width
    }

    /// Makes room for `more` positions after the last.
    pub(crate) fn reserve(&mut self, more: usize) {
        let pages = (self.length + more).div_ceil(PAGE);
        let size = self.page_size();
        self.pages.resize_with(pages.max(self.pages.len()), || vec![0; size].into_boxed_slice());
    }

    /// Counts `more` positions as held, once all layers stored them.
    pub(crate) fn advance(&mut self, more: usize) {
        self.length += more;
    }

    /// Stores one position's key and value of a layer; `reserve` made the room.
    pub(crate) fn store(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) {
        use half::slice::HalfFloatSliceExt;
        let width = self.kv_width;
        let page = &mut self.pages[position / PAGE][layer * 2 * PAGE * width..][..2 * PAGE * width];
        let (keys, values) = page.split_at_mut(PAGE * width);
        let inside = position % PAGE;
        let tile = &mut keys[inside / TILE * TILE * width..][..TILE * width];
        for (channel, key) in tile.as_chunks_mut::<TILE>().0.iter_mut().zip(key) {
            channel[inside % TILE] = half::f16::from_f32(*key).to_bits();
        }
        let value_bits = &mut values[inside * width..][..width];
        half::slice::HalfBitsSliceExt::reinterpret_cast_mut::<half::f16>(value_bits)
            .convert_from_f32_slice(value);
    }

    /// Returns tile `tile` of the keys of one head: `[channel][16 positions]`.
    pub(crate) fn keys(&self, layer: usize, tile: usize, head: usize, head_width: usize) -> &[u16] {
        let (page, inside) = (tile / (PAGE / TILE), tile % (PAGE / TILE));
        let start = layer * 2 * PAGE * self.kv_width + (inside * self.kv_width + head * head_width) * TILE;
        &self.pages[page][start..start + head_width * TILE]
    }

    /// Returns the values of one layer by pages: `[position][head][channel]`.
    pub(crate) fn values(&self, layer: usize) -> impl Iterator<Item = &[u16]> {
        let start = (layer * 2 + 1) * PAGE * self.kv_width;
        self.pages.iter().map(move |page| &page[start..start + PAGE * self.kv_width])
    }
}
