package journal

// Codec is how records are packed when they are written. Reading finds out by itself.
type Codec string

const (
	CodecS2   Codec = "s2"   // S2, where that saves more than an eighth
	CodecNone Codec = "none" // as they are
)
