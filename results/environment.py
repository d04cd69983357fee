"""Environment: where a measurement was made."""

from pydantic import BaseModel, ConfigDict, Field


class Environment(BaseModel):
    """The machine and the software of one measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(description="digest of the host name: tells machines apart without naming them")
    os: str
    cpu: str = Field(description="model of the processor")
    cores: int = Field(description="processors this process may use")
    memory_bytes: int = Field(description="physical memory of the machine")
    threads: int = Field(description="threads torch computes with")
    gpu: str | None = Field(default=None, description="model of the GPU, where the cell ran on one")
    gpu_memory_bytes: int | None = None
    cuda: str | None = Field(default=None, description="CUDA version of torch")
    driver: str | None = None
    python: str
    torch: str
    numpy: str
    attnbench: str
    commit: str | None = Field(default=None, description="git commit of attnbench, if it runs from a clone")
    dirty: bool | None = Field(default=None, description="whether that clone had uncommitted changes")
