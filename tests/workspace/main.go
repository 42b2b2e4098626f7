// A stand-in for a workspace: the one that the Databricks CLI's own tests deploy to.
//
// It prints its address and answers until its input ends. `make cli` builds it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/databricks/cli/libs/testserver"
	"github.com/databricks/databricks-sdk-go/service/catalog"
	"github.com/databricks/databricks-sdk-go/service/jobs"
)

// process is what the server takes for a test: it logs, and ends with the process.
type process struct{}

func (process) Log(args ...any)                 { log.Println(args...) }
func (process) Logf(format string, args ...any) { log.Printf(format, args...) }
func (p process) Error(args ...any)             { p.Log(args...) }
func (p process) Errorf(f string, args ...any)  { p.Logf(f, args...) }
func (process) Fatal(args ...any)               { log.Fatal(args...) }
func (process) Fatalf(f string, args ...any)    { log.Fatalf(f, args...) }
func (process) Skip(args ...any)                { log.Fatal(args...) }
func (process) Skipf(f string, args ...any)     { log.Fatalf(f, args...) }
func (process) FailNow()                        { log.Fatal("failed") }
func (process) Cleanup(func())                  {}
func (process) Context() context.Context        { return context.Background() }
func (process) Setenv(key, value string)        { os.Setenv(key, value) }
func (process) Helper()                         {}
func (p process) TempDir() string {
	folder, err := os.MkdirTemp("", "workspace-")
	if err != nil {
		p.Fatal(err)
	}
	return folder
}

// succeeded is the one run there is: the stand-in's own would try to run the code here.
var succeeded = jobs.Run{
	RunId:      1,
	RunPageUrl: "https://workspace.example/run/1",
	State: &jobs.RunState{
		LifeCycleState: jobs.RunLifeCycleStateTerminated,
		ResultState:    jobs.RunResultStateSuccess,
	},
}

// runNow refuses a job that is not there and a parameter that it does not declare.
func runNow(request testserver.Request) any {
	var wanted jobs.RunNow
	if err := json.Unmarshal(request.Body, &wanted); err != nil {
		return refusal(400, "INVALID_PARAMETER_VALUE", err.Error())
	}
	defer request.Workspace.LockUnlock()()
	job, found := request.Workspace.Jobs[wanted.JobId]
	if !found {
		return refusal(404, "RESOURCE_DOES_NOT_EXIST", "no such job")
	}
	declared := map[string]bool{}
	for _, parameter := range job.Settings.Parameters {
		declared[parameter.Name] = true
	}
	for name := range wanted.JobParameters {
		if !declared[name] {
			return refusal(400, "INVALID_PARAMETER_VALUE", "job parameter "+name+" is not declared")
		}
	}
	return jobs.RunNowResponse{RunId: succeeded.RunId}
}

func refusal(status int, code, message string) testserver.Response {
	body := map[string]string{"error_code": code, "message": message}
	return testserver.Response{StatusCode: status, Body: body}
}

func main() {
	server := testserver.New(process{})
	// The model has been trained: the stand-in itself knows no versions.
	server.Handle("GET", "/api/2.1/unity-catalog/models/{full_name}/versions",
		func(testserver.Request) any {
			versions := []catalog.ModelVersionInfo{{Version: 9}, {Version: 10}}
			return catalog.ListModelVersionsResponse{ModelVersions: versions}
		})
	server.Handle("POST", "/api/2.2/jobs/run-now", runNow)
	server.Handle("GET", "/api/2.2/jobs/runs/get", func(testserver.Request) any { return succeeded })
	empty := func(testserver.Request) any { return map[string]any{} }
	server.Handle("GET", "/api/2.0/serving-endpoints", empty)
	server.Handle("GET", "/api/2.0/feature-store/online-stores", empty)
	testserver.AddDefaultHandlers(server)
	fmt.Println(server.URL)
	io.Copy(io.Discard, os.Stdin)
}
