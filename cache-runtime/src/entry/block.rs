//! LZ4 blocks; without the feature `compression` there are none.

#[cfg(feature = "compression")]
pub(super) use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

#[cfg(not(feature = "compression"))]
pub(super) use self::without::{compress_into, decompress_into, get_maximum_output_size};

/// Compresses nothing. An entry that another process compressed cannot be read and is a miss.
#[cfg(not(feature = "compression"))]
mod without {
    pub(in crate::entry) fn get_maximum_output_size(_length: usize) -> usize {
        0
    }

    pub(in crate::entry) fn compress_into(_json: &[u8], _block: &mut [u8]) -> Result<usize, ()> {
        Err(())
    }

    pub(in crate::entry) fn decompress_into(_block: &[u8], _json: &mut [u8]) -> Result<usize, ()> {
        Err(())
    }
}
