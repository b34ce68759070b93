// Command workload is a small workload for tests: it says over HTTP on which host it runs and since when.
package main

import (
	"fmt"
	"net/http"
	"os"
	"time"
)

func main() {
	began := time.Now().UTC().Format(time.RFC3339)
	host, _ := os.Hostname()
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s %s\n", host, began)
	})
	fmt.Printf("%s serves since %s\n", host, began)
	if err := http.ListenAndServe(":8080", nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
