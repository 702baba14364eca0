package gateway

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/yield"
)

// queryTag is the entity tag of a query's answer. It is a hash of the answer: the version would not suffice,
// as time and the module may change the answer, too. The tag is weak because the fuel spent is not part of
// it, so it cannot be used in If-Match.
func queryTag(version service.Version, data []byte) string {
	h := sha256.New()
	yield.Write(h, data)
	sum := h.Sum(nil)
	return `W/"` + strconv.FormatUint(uint64(version), 10) + "-" + base64.RawURLEncoding.EncodeToString(sum[:9]) + `"`
}

// matches reports whether a tag is among those of an If-None-Match, by the weak comparison of RFC 9110. A
// malformed header matches nothing.
func matches(header []string, tag string) bool {
	tag = strings.TrimPrefix(tag, "W/")
	for _, rest := range header {
		if strings.TrimSpace(rest) == "*" {
			return true
		}
		for {
			rest = strings.TrimPrefix(strings.TrimLeft(rest, " \t,"), "W/")
			if !strings.HasPrefix(rest, `"`) {
				break
			}
			end := strings.IndexByte(rest[1:], '"') + 2
			if end < 2 {
				break
			}
			if rest[:end] == tag {
				return true
			}
			rest = rest[end:]
		}
	}
	return false
}
