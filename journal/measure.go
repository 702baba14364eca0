package journal

// LogSize is what there is of a log on disk.
type LogSize struct {
	LogInfo
	Commits uint64 `json:"commits"`
	Events  uint64 `json:"events"`
	Bytes   uint64 `json:"bytes"` // of its batches, packed as they are
	Types   int    `json:"types"` // of its events, by the event catalogue
}
