package gateway

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// quality is how much a client wants a media type, from 0 (not at all) to 1, and whether it named just
// that type. Who says nothing takes everything; what is malformed says nothing.
func quality(r *http.Request, mediaType string) (q float64, named bool) {
	values := r.Header["Accept"]
	if len(values) == 0 || len(values) == 1 && (values[0] == "*/*" || values[0] == mediaType) { // as nearly always
		return 1, len(values) == 1 && values[0] == mediaType
	}
	best := 0 // of the most specific range that matches
	said := false
	group, _, _ := strings.Cut(mediaType, "/")
	for _, h := range values {
		for part := range strings.SplitSeq(h, ",") {
			t, params, err := mime.ParseMediaType(part)
			if err != nil {
				continue
			}
			said = true
			specific := map[string]int{mediaType: 3, group + "/*": 2, "*/*": 1}[t]
			if specific <= best {
				continue
			}
			best, q = specific, 1
			if text, ok := params["q"]; ok {
				if q, err = strconv.ParseFloat(text, 64); err != nil || !(q >= 0 && q <= 1) {
					q = 1
				}
			}
		}
	}
	if !said {
		return 1, false
	}
	return q, best == 3
}

// prefers reports whether a client wants a special form of an answer rather than JSON, which is what
// everybody gets who does not say.
func prefers(r *http.Request, special string) bool { return preferred(r, special) == special }

// preferred is the special form of an answer that a client wants most, the first of those that it wants
// as much; JSON if it wants none of them rather than that.
func preferred(r *http.Request, special ...string) string {
	best, most := api.ContentJSON, 0.0
	plain, _ := quality(r, api.ContentJSON)
	for _, form := range special {
		if q, named := quality(r, form); q > most && (plain == 0 || named && q >= plain) {
			best, most = form, q
		}
	}
	return best
}

// acceptable lets a request through if its client takes one of the forms that an answer may have.
func acceptable(r *http.Request, forms []string) error {
	for _, form := range forms {
		if q, _ := quality(r, form); q > 0 {
			return nil
		}
	}
	if len(forms) == 0 {
		return nil
	}
	return api.WithStatus(http.StatusNotAcceptable, service.Errorf(service.KindUnsupported, "the answer comes as %s, "+
		"none of which Accept names", strings.Join(forms, ", ")))
}
