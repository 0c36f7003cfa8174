package lane

import (
	"encoding/json"
	"testing"
	"time"
)

// What is no worker's record says nothing: of an acknowledgement not even what is called as a
// member of a record.
func TestParseRecord(t *testing.T) {
	want := record{Owner: "w/1", Consumer: time.UnixMilli(1764000000123).UTC(), Until: 9, Suspect: 8, Count: 1}
	body, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got := parseRecord(body); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, body := range []string{"", "x", "{}", `{"stream":"UP_0","seq":7}`, `{"stream":"UP_0","seq":7,"batch":"b","count":2}`,
		`{"clean":true}`, `{"owner":7}`} {
		if got := parseRecord([]byte(body)); got != (record{}) {
			t.Errorf("%s reads as %+v", body, got)
		}
	}
}
