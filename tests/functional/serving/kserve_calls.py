"""Run by the environment that has kserve's client: its calls against a server, their answers printed as JSON."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

URL = sys.argv[1]


def tensor(name, datatype, values):
    array = np.array(values)
    made = InferInput(name=name, shape=list(array.shape), datatype=datatype)
    made.set_data_from_numpy(array.astype(np.object_) if datatype == "BYTES" else array, binary_data=BINARY)
    return made


async def calls():
    second = InferenceRESTClient(RESTConfig(protocol="v2", verbose=False))
    first = InferenceRESTClient(RESTConfig(protocol="v1", verbose=False))
    share, origin = tensor("share", "FP32", np.array([0.0, 0.9], np.float32)), tensor("origin", "BYTES", ["EWR", "JFK"])
    wanted = {"binary_data_output": BINARY}
    request = InferRequest(model_name="kind", infer_inputs=[share, origin], request_id="k1", parameters=wanted)
    answer = await second.infer(URL, request, model_name="kind")
    outputs = {one.name: np.asarray(one.as_numpy()).tolist() for one in answer.outputs}
    whole = InferRequest(model_name="sum", infer_inputs=[tensor("x", "FP64", [[1.0, 2.0, 3.0]])])
    predicted = await first.infer(URL, {"instances": [[1, 2, 3]]}, model_name="sum")
    return {
        "live": await second.is_server_live(URL),
        "ready": await second.is_server_ready(URL),
        "model": await second.is_model_ready(URL, "kind"),
        "other": await second.is_model_ready(URL, "other"),
        "first": await first.is_model_ready(URL, "sum"),
        "id": answer.id,
        "prediction": outputs["prediction"],
        "decision": [one.decode() if isinstance(one, bytes) else one for one in outputs["decision"]],
        "sum": np.asarray((await second.infer(URL, whole, model_name="sum")).outputs[0].as_numpy()).tolist(),
        "predictions": predicted["predictions"],
    }


BINARY = False
told = {"json": asyncio.run(calls())}
BINARY = True
told["binary"] = asyncio.run(calls())
sys.stdout.write(json.dumps(told))
